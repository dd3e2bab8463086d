"""How a refusal reads: what is wrong, where, what was expected; the hint says what to type next."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

Refusal = TypeVar("Refusal", bound=BaseException)
FEW = 5
"""Of many names or errors, so many are shown."""


class DurableError(ValueError):
    """A file, folder or setting that the user has to mend."""


class UnfinishedError(DurableError):
    """Nothing is wrong, but not all is there yet; the command line exits with 75."""


def with_hint(error: Refusal, hint: str) -> Refusal:
    """Attach what the user may type next; the command line prints it under `hint:`."""
    error.add_note(hint)
    return error


def few(names: Iterable[object]) -> str:
    """The first of many names, and how many more there are."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:FEW]) + (f" and {len(shown) - FEW:,} more" if len(shown) > FEW else "")


def with_others(error: Refusal, others: Sequence[object], where: str) -> Refusal:
    """Attach the errors that there were beside `error`: a few of many, their number, and `where` all are listed."""
    for other in others[:FEW]:
        error.add_note(f"also: {other}")
    if len(others) > FEW:
        error.add_note(f"and {len(others) - FEW:,} more{where and f': {where}'}")
    return error
