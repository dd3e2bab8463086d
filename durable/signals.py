"""Signals become a wish to stop that the work grants at a safe place: save, then exit 75 (or 130 for Ctrl-C)."""

import signal
from types import FrameType, TracebackType
from typing import Self

from durable.errors import UnfinishedError, with_hint

EXIT_DONE, EXIT_REFUSED, EXIT_USAGE, EXIT_QUARANTINED, EXIT_UNFINISHED, EXIT_INTERRUPTED = 0, 1, 2, 3, 75, 130
HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Turns SIGTERM, SIGUSR1 and the first Ctrl-C into `requested`; the second Ctrl-C stops at once.

    Use as a context manager in the main thread around long work, and ask `requested` where stopping is safe.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 75: everything saved, not finished."""
        return EXIT_INTERRUPTED if self.received is signal.SIGINT else EXIT_UNFINISHED

    def raise_if_requested(self, state: str) -> None:
        """Stop here, where there is nothing to save: KeyboardInterrupt after Ctrl-C, else UnfinishedError (exit 75)."""
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is not None:
            raise with_hint(UnfinishedError(f"stopped by {self.received.name}: {state}"), "run the same command again")

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._receive) for number in HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
