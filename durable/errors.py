"""How a refusal reads: what is wrong, where, what was expected; the hint says what to type next."""

from typing import TypeVar

Refusal = TypeVar("Refusal", bound=BaseException)


class DurableError(ValueError):
    """A file, folder or setting that the user has to mend."""


class UnfinishedError(DurableError):
    """Nothing is wrong, but not all is there yet; the command line exits with 75."""


def with_hint(error: Refusal, hint: str) -> Refusal:
    """Attach what the user may type next; the command line prints it under `hint:`."""
    error.add_note(hint)
    return error
