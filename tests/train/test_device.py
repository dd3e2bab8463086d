"""What a device is told, with functions of torch standing in for a GPU."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from train.device import repeatable, sent


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
