import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.corpora import write_corpus
from tests.train.tiny import tiny_recipe
from train.device import find_device, seed_dropout, with_precision
from train.environment import REPEATS, REPEATS_IN_DATA, repeats
from train.pretrain import ENVIRONMENT, pretrain

CPU, SECOND_GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch is told about GPUs, of which there are two."""
    calls: list[str] = []

    @contextlib.contextmanager
    def device(one: torch.device) -> Iterator[None]:
        calls.append(f"on {one}")
        yield
        calls.append(f"off {one}")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: calls.append(f"seed {seed}"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: calls.append("bf16?") or True)
    return calls


def test_dropout_is_seeded_on_the_gpu_that_is_used(told: list[str]) -> None:
    seed_dropout(find_device("cuda:1"), 7)
    assert told == ["on cuda:1", "seed 7", "off cuda:1"]


def test_the_precision_is_that_of_the_gpu_that_is_used(told: list[str]) -> None:
    recipe = with_precision(tiny_recipe(training__precision='"auto"'), find_device("cuda:1"))
    assert recipe.training.precision == "bf16"
    assert told == ["on cuda:1", "bf16?", "off cuda:1"]


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
