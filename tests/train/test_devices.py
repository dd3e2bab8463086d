"""What pre-training does on a GPU, as far as stand-ins show: when it waits for it, and what is compiled."""

import functools
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from symbert import OPERATORS
from tests.corpora import write_corpus
from tests.devices import META, HostReads
from tests.train.tiny import tiny_recipe
from train.corpus import Corpus, open_corpus
from train.data import Masking, TrainingOrder
from train.loop import Trainer, TrainingBatches
from train.measures import attention_measures
from train.pretrain import first_model
from train.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # the compiler's import
OF_EACH_KIND = [*OPERATORS, "additive,pairwise"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(write_corpus(tmp_path_factory.mktemp("devices") / "corpus"))


@pytest.fixture(autouse=True)
def _fused_on_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let AdamW take its fused kernels, of which torch knows the shapes but lists real devices alone."""
    monkeypatch.setattr(
        sys.modules[torch.optim.Optimizer.__module__], "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"]
    )


def parts(corpus: Corpus, recipe: Recipe) -> tuple[Trainer, TrainingBatches]:
    masking = Masking(**recipe.masking.model_dump(), vocabulary=corpus.vocabulary)
    order = TrainingOrder(len(corpus.train), recipe.training.seed)
    batches = TrainingBatches(corpus.train, order, masking, recipe.training.batch_size)
    return Trainer(first_model(recipe), recipe, META), batches


@pytest.mark.parametrize("operator", OF_EACH_KIND)
def test_a_step_does_not_wait_for_the_device_and_an_evaluation_once(corpus: Corpus, operator: str) -> None:
    trainer, batches = parts(corpus, tiny_recipe(operator, runtime__micro_batch_size=4))
    with HostReads() as reads:
        for step in range(1, 3):
            trainer.step(step, batches(step))
    assert not reads.places
    with HostReads() as reads:
        trainer.predictor.evaluate(corpus.validation, batches.masking, trainer.recipe.evaluation)
    assert reads.places == ["evaluate"]


@pytest.mark.parametrize("operator", OF_EACH_KIND)
def test_measures_of_attention_wait_once_for_the_weights_and_once_for_the_maps(corpus: Corpus, operator: str) -> None:
    trainer, _ = parts(corpus, tiny_recipe(operator, runtime__micro_batch_size=3))
    with HostReads() as reads:
        attention_measures(trainer.model, corpus.validation, 3)
    assert reads.places == ([] if operator == "additive" else ["attention_facts", "symmetry_scores"])


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param("additive,pairwise", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.long) for name in OPERATORS),
    ],
)
def test_twenty_steps_and_evaluations_with_odd_last_batches_are_two_graphs(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter, fullgraph=True))
    settings = {"runtime__micro_batch_size": 3, "runtime__compile": "true", "evaluation__samples": 7}
    trainer, batches = parts(corpus, tiny_recipe(operator, **settings))
    for step in range(1, 21):
        trainer.step(step, batches(step))
        if step % 10 == 0:
            # All is computed once the stand-in's result is to be read; HostReads would keep the compiler away.
            with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
                trainer.predictor.evaluate(corpus.validation, batches.masking, trainer.recipe.evaluation)
    assert counter.frame_count == 2
