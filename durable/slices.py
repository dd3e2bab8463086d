"""A run divided into slices, each done by a command of its own, on any machine, at any time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from durable.errors import DurableError, with_hint

Thing = TypeVar("Thing")
FINISH = "finish"
MOST_SLICES = 1000
"""Slurm's own default for the greatest number of an array's tasks, MaxArraySize, is 1001."""


@dataclass(frozen=True)
class Slice:
    """Slice `number` of `count`, from 0."""

    number: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.number}-of-{self.count}"

    def of(self, things: Sequence[Thing]) -> list[Thing]:
        """Every `count`-th thing: of things in order of size, slices of about the same size."""
        return list(things[self.number :: self.count])


def parse_slice(text: str) -> Slice | None:
    """`3/24` is slice 3 of 0 to 23; `finish` is None: the step that comes after all slices. Raises DurableError."""
    if text == FINISH:
        return None
    number, _, count = text.partition("/")
    if not (number.isascii() and number.isdecimal() and count.isascii() and count.isdecimal()):
        raise with_hint(DurableError(f"{text} is not K/N or {FINISH}"), "--slice 0/24 is the first of 24")
    if int(number) >= int(count):
        raise DurableError(f"{text} is no slice of {count}, expected K/N with K from 0 to N - 1")
    return Slice(int(number), int(count))
