"""How long work tells its progress: numbers go to a callback; what they look like is the command line's affair."""

from collections.abc import Mapping
from typing import Protocol


class ProgressCallback(Protocol):
    """Called now and then by long work, from the main thread.

    `done` and `total` are in the unit of work that the bar shows (bytes of input, steps, cells); `total` is None
    where it is not known. `facts` are further numbers worth a word, such as {"loss": 2.31}.
    """

    def __call__(self, done: float, total: float | None, facts: Mapping[str, float | str]) -> None: ...


def silent(done: float, total: float | None, facts: Mapping[str, float | str]) -> None:
    """A ProgressCallback that shows nothing."""


def unheard(_notice: str) -> None:
    """Hear of nothing."""
