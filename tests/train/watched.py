"""What torch is asked to compute, watched: on a CPU, what would make a GPU's run fail or wait."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READING = {"_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select"}
"""What makes the host wait for a value of a GPU."""


class Watched(TorchDispatchMode):
    """Keeps the names of all that is computed within the block, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))
