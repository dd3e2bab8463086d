"""What is promised of a run's repetition, and what holds it."""

import json
from pathlib import Path

import pytest
import torch

from tests.corpora import write_corpus
from tests.train.test_loop import parts
from tests.train.tiny import tiny_recipe
from train.corpus import open_corpus
from train.environment import REPEATS, REPEATS_IN_DATA, repeats
from train.pretrain import ENVIRONMENT, pretrain

CPU, SECOND_GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.mark.parametrize(
    ("device", "settings", "promised"),
    [
        (CPU, {}, REPEATS),
        (CPU, {"runtime__compile": "true"}, REPEATS_IN_DATA),
        (CPU, {"runtime__compile": "true", "runtime__deterministic": "true"}, REPEATS),
        (SECOND_GPU, {}, REPEATS_IN_DATA),
        (SECOND_GPU, {"runtime__compile": "false"}, REPEATS_IN_DATA),
        (SECOND_GPU, {"runtime__deterministic": "true"}, REPEATS),
    ],
)
def test_no_more_is_promised_than_the_kernels_hold(
    device: torch.device, settings: dict[str, str], promised: str
) -> None:
    assert repeats(tiny_recipe(**settings), device) == promised


def test_what_is_promised_is_promised_for_one_micro_batch(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path))
    norms = []
    for size in (8, 4, 4):
        trainer, batches = parts(corpus, tiny_recipe(runtime__micro_batch_size=size))
        norms.append(float(trainer.step(1, batches(1))[1]))
    assert norms[1] == norms[2]
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)  # other dropout, and not other rounding alone
    for promised in (REPEATS, REPEATS_IN_DATA):
        assert "the same micro-batch" in promised


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_deterministic_kernels_are_taken_where_they_are_asked_for(tmp_path: Path, deterministic: str) -> None:
    recipe = tiny_recipe("pairwise", schedule__max_steps=5, runtime__deterministic=deterministic)
    seen = []
    pretrain(
        write_corpus(tmp_path / "corpus"),
        tmp_path / "run",
        recipe,
        device="cpu",
        progress=lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()),
    )
    assert seen
    assert set(seen) == {deterministic == "true"}
    assert not torch.are_deterministic_algorithms_enabled()
    (invocation,) = json.loads((tmp_path / "run" / ENVIRONMENT).read_text("utf-8"))["invocations"]
    assert invocation["repeats"] == REPEATS
    assert invocation["runtime"]["deterministic"] is (deterministic == "true")
