"""What a device is told, with functions of torch standing in for a GPU."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from train.device import sent


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
