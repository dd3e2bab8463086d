from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from symbert import OPERATORS
from tests.corpora import write_corpus
from tests.train.tiny import tiny_recipe
from train.corpus import Corpus, open_corpus
from train.data import EVALUATION_MASKS, Masking, TrainingOrder
from train.loop import Trainer, TrainingBatches
from train.predict import Evaluation, capacity
from train.pretrain import first_model
from train.recipe import Recipe

NO_DROPOUT = {"model__hidden_dropout_prob": 0.0, "model__attention_probs_dropout_prob": 0.0}
CPU = torch.device("cpu")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return open_corpus(write_corpus(tmp_path / "corpus"))


def parts(corpus: Corpus, recipe: Recipe) -> tuple[Trainer, TrainingBatches]:
    masking = Masking(**recipe.masking.model_dump(), vocabulary=corpus.vocabulary)
    order = TrainingOrder(len(corpus.train), recipe.training.seed)
    batches = TrainingBatches(corpus.train, order, masking, recipe.training.batch_size)
    return Trainer(first_model(recipe), recipe, CPU), batches


def evaluate(trainer: Trainer, corpus: Corpus, batches: TrainingBatches) -> Evaluation:
    return trainer.predictor.evaluate(corpus.validation, batches.masking, trainer.recipe.evaluation)


def losses(corpus: Corpus, recipe: Recipe, steps: int = 6) -> list[float]:
    trainer, batches = parts(corpus, recipe)
    return [trainer.step(step, batches(step))[0].item() for step in range(1, steps + 1)]


@pytest.mark.parametrize("operator", OPERATORS)
def test_loss_and_gradients_are_those_of_the_dense_model(corpus: Corpus, operator: str) -> None:
    trainer, batches = parts(corpus, tiny_recipe(operator, runtime__micro_batch_size=3, **NO_DROPOUT))
    batch = batches(1)
    dense = first_model(trainer.recipe)
    labels = torch.full((batch.input_ids.size,), -100)
    labels[batch.positions] = torch.from_numpy(batch.labels)
    logits = dense(input_ids=torch.from_numpy(batch.input_ids)).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels)
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(dense.parameters(), 1.0)
    loss, found_norm = trainer.step(1, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found_norm.item() == pytest.approx(norm.item(), rel=1e-5)
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(trainer.model.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-7)


def test_loss_and_gradients_are_those_of_transformers_bert_on_every_position(corpus: Corpus) -> None:
    trainer, batches = parts(corpus, tiny_recipe("original", **NO_DROPOUT))
    shape = BertConfig().to_dict().keys() & trainer.recipe.model.model_dump().keys()
    config = BertConfig(**trainer.recipe.model.model_dump(include=shape))
    bert = BertForMaskedLM(config)
    bert.load_state_dict(
        {name.replace("symbert.", "bert."): weight for name, weight in trainer.model.state_dict().items()}
    )
    batch = batches(1)
    labels = torch.full((batch.input_ids.size,), -100)
    labels[batch.positions] = torch.from_numpy(batch.labels)
    labels = labels.view(batch.input_ids.shape)
    tokens = torch.from_numpy(batch.input_ids)
    expected = bert.train()(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels).loss
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(bert.parameters(), 1.0)
    loss, found_norm = trainer.step(1, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found_norm.item() == pytest.approx(norm.item(), rel=1e-5)
    for name, parameter in bert.named_parameters():
        found = trainer.model.get_parameter(name.replace("bert.", "symbert.")).grad
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch.compile's own import
def test_a_compiled_model_with_fixed_capacity_has_the_same_losses(corpus: Corpus) -> None:
    settings = {"runtime__micro_batch_size": 3, **NO_DROPOUT}
    recipe = tiny_recipe("pairwise", runtime__compile="true", **settings)
    plain = tiny_recipe("pairwise", **settings)
    assert losses(corpus, recipe, 4) == pytest.approx(losses(corpus, plain, 4), rel=1e-5)
    found, expected = (evaluate(parts(corpus, one)[0], corpus, parts(corpus, one)[1]) for one in (recipe, plain))
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.accuracy == expected.accuracy


def test_capacity_is_six_deviations_above_the_mean_and_leaves_no_masked_token_out() -> None:
    assert capacity(8 * 512, 0.15) == 768  # mean 614.4, deviation 22.9
    assert capacity(8 * 512, 0.15, needed=769) == 832
    assert capacity(2, 1.0) == 64


def test_losses_do_not_depend_on_the_micro_batch(corpus: Corpus) -> None:
    sizes = (8, 4, 3, 2)
    runs = [losses(corpus, tiny_recipe("pairwise", runtime__micro_batch_size=size, **NO_DROPOUT)) for size in sizes]
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], rel=1e-5)


def test_dropout_is_the_same_each_time_a_step_is_taken_and_another_at_the_next(corpus: Corpus) -> None:
    recipe = tiny_recipe(optimizer__learning_rate=1e-30)
    once, again = losses(corpus, recipe, 2), losses(corpus, recipe, 2)
    assert once == again
    trainer, batches = parts(corpus, recipe)
    batch = batches(1)
    assert trainer.step(1, batch)[0] != trainer.step(2, batch)[0]


def test_evaluation_does_not_depend_on_the_micro_batch_or_the_training_seed(corpus: Corpus) -> None:
    found = []
    for changes in ({"runtime__micro_batch_size": 16}, {"runtime__micro_batch_size": 3, "training__seed": 2}):
        trainer, batches = parts(corpus, tiny_recipe(**changes))
        trainer.model.load_state_dict(first_model(tiny_recipe()).state_dict())
        found.append(evaluate(trainer, corpus, batches))
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-6)
    assert found[0].standard_error == pytest.approx(found[1].standard_error, rel=1e-4)
    assert found[0].accuracy == found[1].accuracy


def test_the_standard_error_agrees_with_a_bootstrap_over_samples(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path / "large", validation=300))
    trainer, batches = parts(corpus, tiny_recipe())
    numbers = np.arange(300, dtype=np.uint64)
    batch = batches.masking(corpus.validation.rows(numbers), numbers, np.zeros_like(numbers), (EVALUATION_MASKS, 0))
    with torch.no_grad():
        trainer.model.eval()
        logits = trainer.model(
            input_ids=torch.from_numpy(batch.input_ids), masked_positions=torch.from_numpy(batch.positions)
        ).logits
    token_losses = F.cross_entropy(logits, torch.from_numpy(batch.labels), reduction="none").numpy()
    owners = batch.positions // 32
    sums, counts = np.bincount(owners, token_losses, 300), np.bincount(owners, minlength=300)
    draws = np.random.default_rng(0).integers(0, 300, (4000, 300))
    bootstrap = (sums[draws].sum(1) / counts[draws].sum(1)).std()
    found = evaluate(trainer, corpus, batches)
    assert found.loss == pytest.approx(token_losses.mean(), rel=1e-6)
    assert found.standard_error == pytest.approx(bootstrap, rel=0.1)


def test_at_most_so_many_samples_are_evaluated(corpus: Corpus) -> None:
    few, batches = parts(corpus, tiny_recipe(evaluation__samples=4))
    many, _ = parts(corpus, tiny_recipe(evaluation__samples=1000))
    assert evaluate(few, corpus, batches) != evaluate(many, corpus, batches)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone_from_then_on(corpus: Corpus) -> None:
    trainer, batches = parts(corpus, tiny_recipe(**NO_DROPOUT))
    trainer.step(2, batches(2))
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    hook = trainer.model.cls.predictions.bias.register_hook(lambda gradient: gradient * float("nan"))
    trainer.step(3, batches(3))
    hook.remove()
    trainer.step(4, batches(4))
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())


def test_a_norm_of_zero_leaves_gradients_as_they_are(corpus: Corpus) -> None:
    free, batches = parts(corpus, tiny_recipe(optimizer__max_gradient_norm=0, **NO_DROPOUT))
    clipped, _ = parts(corpus, tiny_recipe(optimizer__max_gradient_norm=1e-3, **NO_DROPOUT))
    norms = [trainer.step(2, batches(2))[1] for trainer in (free, clipped)]
    assert torch.equal(*norms)
    found = [
        torch.nn.utils.get_total_norm([weight.grad for weight in trainer.model.parameters() if weight.grad is not None])
        for trainer in (free, clipped)
    ]
    assert torch.equal(found[0], norms[0])
    assert float(found[1]) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_trains_with_dropout_in_every_precision(corpus: Corpus, operator: str, precision: str) -> None:
    found = losses(corpus, tiny_recipe(operator, training__precision=f'"{precision}"'), 3)
    assert found == pytest.approx(losses(corpus, tiny_recipe(operator), 3), rel=0.03)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_close_to_fp32(corpus: Corpus, precision: str) -> None:
    lower = losses(corpus, tiny_recipe(training__precision=f'"{precision}"', **NO_DROPOUT))
    assert lower == pytest.approx(losses(corpus, tiny_recipe(**NO_DROPOUT)), rel=0.02)
