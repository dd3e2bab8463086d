"""How a refusal reads: what is wrong, where, what was expected; the hint says what to type next."""

from collections.abc import Sequence
from typing import TypeVar

Refusal = TypeVar("Refusal", bound=BaseException)
MOST_OTHERS = 5
"""Of the errors beside the first, so many are shown."""


class DurableError(ValueError):
    """A file, folder or setting that the user has to mend."""


class UnfinishedError(DurableError):
    """Nothing is wrong, but not all is there yet; the command line exits with 75."""


def with_hint(error: Refusal, hint: str) -> Refusal:
    """Attach what the user may type next; the command line prints it under `hint:`."""
    error.add_note(hint)
    return error


def with_others(error: Refusal, others: Sequence[object], where: str) -> Refusal:
    """Attach the errors that there were beside `error`: a few of many, their number, and `where` all are listed."""
    for other in others[:MOST_OTHERS]:
        error.add_note(f"also: {other}")
    if len(others) > MOST_OTHERS:
        error.add_note(f"and {len(others) - MOST_OTHERS:,} more{where and f': {where}'}")
    return error
