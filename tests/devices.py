"""The meta device as a stand-in for a GPU: it computes shapes alone, and what cannot be done there shows on a CPU.

A CPU tensor among those of the device is refused, and a read by the host, which waits for a GPU, is counted and
answered with zeros.
"""

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
aten = torch.ops.aten
TRANSFERS = (aten._to_copy.default, aten.copy_.default)
"""What may have tensors of two devices."""


class HostReads(TorchDispatchMode):
    """Within the block `places` lists the function of this project behind every read of a meta tensor by the host."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = [tensor for tensor in tensors if tensor.is_meta]
        if not on_device:
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self.places.append(_place())
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and torch.device(kwargs.get("device") or META).type == "cpu":
            self.places.append(_place())
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is aten.copy_.default and not args[0].is_meta:
            self.places.append(_place())
            return args[0].zero_()
        # A GPU takes a number from the CPU, too.
        strangers = [tensor for tensor in tensors if not tensor.is_meta and tensor.dim()]
        if strangers and func not in TRANSFERS:
            raise AssertionError(f"{func} got tensors of two devices, at {_place()}")
        return func(*args, **kwargs)


def _place() -> str:
    """The innermost function of this project."""
    frames = [frame for frame in traceback.extract_stack() if "site-packages" not in frame.filename]
    names = [frame.name for frame in frames if frame.filename != __file__ and not frame.name.startswith("<")]
    return names[-1]
