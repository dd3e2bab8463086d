"""What a device is told, with functions of torch standing in for a GPU."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.tiny import tiny_recipe
from train.device import find_device, repeatable, seed_dropout, sent, with_precision


def test_an_array_is_sent_to_a_gpu_from_pinned_memory_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def pinned(tensor: Tensor) -> Tensor:
        calls.append("pinned")
        return tensor

    def copied(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        calls.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "to", copied)
    assert sent(np.arange(3), torch.device("cuda")).tolist() == [0, 1, 2]
    assert calls == ["pinned", ("cuda", True)]


def test_an_array_stays_where_it_is_for_a_cpu() -> None:
    array = np.arange(3)
    assert sent(array, torch.device("cpu")).data_ptr() == array.ctypes.data


@pytest.mark.parametrize(("tf32", "precision"), [(True, "tf32"), (False, "ieee")])
def test_a_gpu_computes_products_of_float32_as_it_is_told_and_is_put_back(
    tf32: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a GPU there are no generators of one to put back.
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext(devices))
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with repeatable(torch.device("cuda"), tf32=tf32):
        assert matmul.fp32_precision == precision
        assert torch.are_deterministic_algorithms_enabled()
    assert matmul.fp32_precision == before
    with pytest.raises(ZeroDivisionError), repeatable(torch.device("cuda"), tf32=tf32):
        raise ZeroDivisionError
    assert matmul.fp32_precision == before
    assert torch.backends.cuda.matmul.allow_tf32 is False  # the older switch can still be asked
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_cpu_computes_as_ever() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    with repeatable(torch.device("cpu"), tf32=True):
        assert (matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision) == before


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
