"""Seeds trained in lock-step against the same seeds trained one by one, on the CPU."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from symbert import OPERATORS
from tests.train.glue.conftest import CheckpointFactory, save_tokenizer
from tests.train.watched import READING, Watched
from train.errors import TrainError
from train.glue.checkpoint import Subject, find_subject
from train.glue.encode import EncodedTask, encode_task
from train.glue.finetune import Candidate, Finetuned, StoppedError, finetune
from train.glue.loading import load_classifier
from train.glue.lockstep import Stack, finetune_together, stacked_steps, train_together
from train.glue.protocol import Protocol
from train.glue.read import read_task
from train.glue.score import predictions_of
from train.glue.tasks import TASKS

CPU = torch.device("cpu")
# The last of six batches has five rows; clipping is at work in every step.
PROTOCOL = Protocol(epochs=2, batch_size=7, learning_rate=1e-3, weight_decay=0.1, max_gradient_norm=0.3)
SEEDS = (2, 1, 5)


def silent(step: int) -> None:
    """Nothing to say."""


def encoded(glue: Path, subject: Subject, task: str = "rte") -> EncodedTask:
    return encode_task(read_task(TASKS[task], glue), subject, 32)


def with_settings(checkpoint: Path, copy: Path, **settings: object) -> Subject:
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **settings}))
    return find_subject(copy, print)


def without_dropout(checkpoint: Path, copy: Path) -> Subject:
    return with_settings(checkpoint, copy, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def together(
    subject: Subject,
    task: EncodedTask,
    protocol: Protocol = PROTOCOL,
    seeds: Sequence[int] = SEEDS,
    device: torch.device = CPU,
) -> list[Finetuned]:
    results = finetune_together([Candidate(subject, seed) for seed in seeds], task, protocol, device, silent)
    assert all(isinstance(result, Finetuned) for result in results), results
    return results  # type: ignore[return-value]


def assert_equal_to_separate_runs(
    subject: Subject, task: EncodedTask, protocol: Protocol, device: torch.device = CPU, **tolerance: float
) -> None:
    for seed, stacked in zip(SEEDS, together(subject, task, protocol, device=device), strict=True):
        alone = finetune(subject, task, protocol, seed, device, silent)
        np.testing.assert_allclose(stacked.training_loss, alone.training_loss, **tolerance)
        for split, logits in alone.logits.items():
            np.testing.assert_allclose(stacked.logits[split], logits, **tolerance)
        assert (stacked.seeds_together, alone.seeds_together) == (SEEDS, (seed,))


@pytest.mark.slow
@pytest.mark.parametrize("operator", [*OPERATORS, "original,additive"])
@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_seeds_in_lock_step_equal_separate_runs_for_every_operator(
    task: str, operator: str, glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    subject = without_dropout(checkpoint(operator), tmp_path / "copy")
    assert_equal_to_separate_runs(subject, encoded(glue, subject, task), PROTOCOL, rtol=1e-4, atol=1e-5)


def test_a_stock_bert_trains_in_lock_step_too(glue: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2}
        BertForMaskedLM(
            BertConfig(vocab_size=23, intermediate_size=34, max_position_embeddings=32, **sizes)
        ).save_pretrained(tmp_path / "bert")
    save_tokenizer(tmp_path / "bert")
    subject = without_dropout(tmp_path / "bert", tmp_path / "copy")
    assert_equal_to_separate_runs(subject, encoded(glue, subject), PROTOCOL, rtol=1e-4, atol=1e-5)


def test_fixed_positions_stay_fixed_in_lock_step(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    subject = without_dropout(checkpoint(), tmp_path / "copy")
    subject = with_settings(subject.folder, tmp_path / "fixed", position_embedding="sinusoidal")
    assert_equal_to_separate_runs(subject, encoded(glue, subject), PROTOCOL, rtol=1e-4, atol=1e-5)


def test_bfloat16_in_lock_step_is_that_of_separate_runs(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    subject = without_dropout(checkpoint(), tmp_path / "copy")
    protocol = PROTOCOL.model_copy(update={"epochs": 1, "precision": "bfloat16"})
    assert_equal_to_separate_runs(subject, encoded(glue, subject), protocol, rtol=0.02, atol=0.02)


def test_a_padding_token_among_the_words_gets_no_gradient_from_any_seed(
    glue: Path, checkpoint: CheckpointFactory
) -> None:
    subject = find_subject(checkpoint(), print)
    split = encoded(glue, subject).train
    ids = split.ids.copy()
    ids[split.offsets[:-1] + 1] = split.padding_id
    stack = Stack([load_classifier(subject, 2, seed) for seed in SEEDS], CPU)
    stack.losses(replace(split, ids=ids), np.arange(21).reshape(3, 7), PROTOCOL).sum().backward()
    stack.clip_gradients(1.0)
    gradient = stack.parameters["symbert.embeddings.word_embeddings.weight"].grad
    assert gradient is not None
    norms = gradient.norm(dim=-1)
    assert (norms[:, split.padding_id] == 0).all()
    assert (norms[:, ids[0]] > 0).all()  # [CLS], which every example has


def test_a_stack_repeats_bit_for_bit_and_every_seed_draws_its_own_dropout(
    glue: Path, checkpoint: CheckpointFactory
) -> None:
    subject = find_subject(checkpoint(), print)
    data = encoded(glue, subject)
    torch.manual_seed(1)
    first = together(subject, data)
    torch.manual_seed(2)
    again = together(subject, data)
    assert [one.sha256() for one in first] == [one.sha256() for one in again]
    assert [one.training_loss for one in first] == [one.training_loss for one in again]
    assert len({one.sha256() for one in first}) == len(SEEDS)


def test_models_that_share_head_and_batches_differ_by_their_dropout_alone(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    rows = np.stack([np.arange(7)] * 3)
    for kind, places in (
        ({}, []),
        ({"hidden_dropout_prob": 0.1}, ["hidden"]),
        ({"attention_probs_dropout_prob": 0.1}, ["attention"]),
        ({"classifier_dropout": 0.1}, ["classifier"]),
    ):
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
        subject = with_settings(checkpoint(), tmp_path / "-".join(["copy", *places]), **{**none, **kind})
        stack = Stack([load_classifier(subject, 2, 1) for _ in range(3)], CPU)
        losses = stack.losses(encoded(glue, subject).train, rows, PROTOCOL)
        assert len(set(losses.tolist())) == (3 if places else 1), kind


def test_the_gradient_of_each_seed_is_cut_to_the_norm_by_itself(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    stack = Stack([load_classifier(subject, 2, seed) for seed in (1, 2)], CPU)
    losses = stack.losses(encoded(glue, subject).train, np.arange(14).reshape(2, 7), PROTOCOL)
    (losses * torch.tensor([1.0, 1e-3])).sum().backward()
    gradients = [values.grad for values in stack.parameters.values() if values.grad is not None]

    def norm(place: int) -> float:
        return float(torch.stack([one[place].norm() for one in gradients]).norm())

    before = norm(1)
    assert 0 < before < 0.3 < norm(0)
    stack.clip_gradients(0.3)
    assert norm(0) == pytest.approx(0.3, rel=1e-4)
    assert norm(1) == before


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("norm", [0.3, 1e6, float("inf")])
def test_each_seed_is_cut_as_torch_cuts_one_model(norm: float, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    models = [load_classifier(subject, 2, seed) for seed in SEEDS]
    stack, generator = Stack(models, CPU), torch.Generator().manual_seed(1)
    without = "classifier.weight"
    scale = torch.tensor([1.0, 0.0, 1e-4])  # one seed has no gradient to speak of, another a small one
    for name, values in stack.parameters.items():
        gradient = torch.randn(values.shape, generator=generator) * scale.view(-1, *[1] * (values.dim() - 1))
        if name.endswith("word_embeddings.weight"):
            gradient[:, 0] = 0  # the padding
        for place, model in enumerate(models):
            if name != without:
                model.get_parameter(name).grad = gradient[place].clone()
        values.grad = None if name == without else gradient
    with deterministic():
        stack.clip_gradients(norm)
    for place, model in enumerate(models):
        torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        for name, parameter in model.named_parameters():
            stacked = stack.parameters[name].grad
            if parameter.grad is None:
                assert stacked is None
            else:
                assert stacked is not None
                torch.testing.assert_close(stacked[place], parameter.grad, rtol=1e-5, atol=0.0)


def test_gradients_are_cut_without_reading_one_of_them(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    # Tensors of the meta device have no values: whatever reads one raises.
    stack = Stack([load_classifier(subject, 2, seed) for seed in SEEDS], torch.device("meta"))
    with pytest.raises(RuntimeError, match="meta"):
        next(iter(stack.parameters.values())).sum().item()
    losses = stack.losses(encoded(glue, subject).train, np.arange(21).reshape(3, 7), PROTOCOL)
    losses.sum().backward()
    stack.clip_gradients(0.3)
    gradient = stack.parameters["symbert.embeddings.word_embeddings.weight"].grad
    assert gradient is not None
    assert gradient.device.type == "meta"


def test_a_step_of_a_stack_reads_nothing_that_a_gpu_has_still_to_compute(
    glue: Path, checkpoint: CheckpointFactory
) -> None:
    subject = find_subject(checkpoint(), print)
    stack = Stack([load_classifier(subject, 2, seed) for seed in SEEDS], CPU)
    with Watched() as watched:
        next(stacked_steps(stack, encoded(glue, subject).train, PROTOCOL, SEEDS))
    assert "_fused_adamw_" in watched.names
    assert not watched.names & READING


def test_a_seed_that_diverges_is_an_error_and_leaves_the_others_alone(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    healthy = without_dropout(checkpoint(), tmp_path / "copy")
    data = encoded(glue, healthy)
    models = [load_classifier(healthy, 2, seed) for seed in (1, 2)]
    with torch.no_grad():
        models[0].classifier.bias.fill_(float("nan"))
    losses = train_together(models, data.train, PROTOCOL, (1, 2), CPU, silent)
    (_, expected) = (together(healthy, data, seeds=(1, 2))[place].training_loss for place in (0, 1))
    assert np.isnan(losses[0])
    assert losses[1] == pytest.approx(expected, rel=1e-4)
    wild = Protocol(epochs=1, learning_rate=1e38)
    results = finetune_together([Candidate(healthy, seed) for seed in (1, 2)], data, wild, CPU, silent)
    assert [str(result) for result in results] == [
        f"copy, rte, seed {seed}: the training diverged, its loss is no number" for seed in (1, 2)
    ]
    assert all(isinstance(result, TrainError) for result in results)


def test_seeds_in_lock_step_learn_what_can_be_learned(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint("original"), print)
    data = encoded(glue, subject, "cola")
    for result in together(subject, data, Protocol(epochs=20, learning_rate=3e-3), (1, 2)):
        predictions = predictions_of(TASKS["cola"], result.logits["validation"])
        assert (predictions == data.splits["validation"].labels).all()


def test_a_step_of_all_counts_as_one_and_may_end_the_training(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    steps = []

    def stop_at_two(step: int) -> None:
        steps.append(step)
        if step == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        finetune_together(
            [Candidate(subject, seed) for seed in SEEDS], encoded(glue, subject), PROTOCOL, CPU, stop_at_two
        )
    assert steps == [1, 2]


def test_the_models_of_a_stack_are_kept_and_other_splits_are_predicted(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    subject = without_dropout(checkpoint(), tmp_path / "copy")
    data, other = encoded(glue, subject), encoded(glue, subject, "cola").splits["validation"]
    kept: list[Any] = []
    candidates = [Candidate(subject, seed, {"other": other}, kept.append) for seed in (1, 2)]
    for seed, stacked, model in zip(
        (1, 2), finetune_together(candidates, data, PROTOCOL, CPU, silent), kept, strict=True
    ):
        assert isinstance(stacked, Finetuned)
        models: list[Any] = []
        alone = finetune(subject, data, PROTOCOL, seed, CPU, silent, {"other": other}, models.append)
        np.testing.assert_allclose(stacked.extra["other"], alone.extra["other"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.state_dict(), models[0].state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("operator", OPERATORS)
def test_on_a_gpu_too_a_stack_repeats_bit_for_bit_and_equals_separate_runs(
    operator: str, glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    gpu = torch.device("cuda")
    with_dropout = find_subject(checkpoint(operator), print)
    data = encoded(glue, with_dropout)
    first, again = (together(with_dropout, data, device=gpu) for _ in range(2))
    assert [one.sha256() for one in first] == [one.sha256() for one in again]
    subject = without_dropout(checkpoint(operator), tmp_path / "copy")
    assert_equal_to_separate_runs(subject, data, PROTOCOL, gpu, rtol=1e-3, atol=1e-4)
