"""What every engine means by a task, its work and its outcome, wherever it is done."""

import contextlib
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from durable.board import Board, Facts, Failure
from durable.signals import StopRequest

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Tell = Callable[[Facts], None]
"""Given to the work: sends facts (plain JSON, `done` of `total` first of all) to the driver, now and then."""
Work = Callable[[Argument, Tell], Result]
Start = Callable[[Any], Work[Argument, Result]]
"""Called once by each worker, with the setting; returns what the worker does for every task."""

ATTEMPTS = 3
"""A task whose workers died so often is left out."""


@dataclass(frozen=True)
class Outcome(Generic[Argument, Result]):
    """What became of one task: a result, or the error that it raised, or neither where its workers died."""

    argument: Argument
    result: Result | None = None
    error: Exception | None = None
    deaths: int = 0
    """How many workers died over it."""

    @property
    def lost(self) -> bool:
        """Whether the task was left out because it kills its workers."""
        return self.result is None and self.error is None


class Executor(Protocol[Argument, Result]):
    """Runs tasks somewhere, and yields what becomes of each as it ends."""

    def run(self, tasks: Iterable[Argument]) -> Iterator[Outcome[Argument, Result]]: ...


class WorkerTracebackError(Exception):
    """Where in the worker an error was raised; the cause of the error that the driver sees."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Posting(Generic[Argument]):
    """On which board the tasks of a run are listed, and under which key each."""

    board: Board
    key: Callable[[Argument], str]

    def settle(self, outcome: Outcome[Argument, Any]) -> None:
        """List what became of a task."""
        key = self.key(outcome.argument)
        if outcome.lost:
            self.board.stopped(key)
            self.board.fail(key, Failure(f"its process was killed {outcome.deaths} times", outcome.deaths))
        elif outcome.error is not None:
            self.board.fail(key, Failure(str(outcome.error), kind=type(outcome.error).__name__))
        else:
            self.board.forgive(key)


@dataclass(frozen=True)
class Watch(Generic[Argument]):
    """Who hears of the tasks while they run, and who may end the run."""

    on_report: Callable[[Argument, Facts], None] | None = None
    stop: StopRequest | None = None
    posting: Posting[Argument] | None = None
    on_loss: Callable[[Argument, str], None] | None = None
    """Hears of every task whose worker or machine was lost, and that is sent again."""

    @property
    def stopped(self) -> bool:
        return self.stop is not None and self.stop.requested

    @property
    def board(self) -> Board | None:
        return self.posting.board if self.posting is not None else None

    def key(self, argument: Argument) -> str:
        return self.posting.key(argument) if self.posting is not None else ""


@dataclass(frozen=True)
class Needs:
    """What a task takes of the machine that it is sent to, beside one processor."""

    paths: Sequence[Path] = ()
    """Files and folders that every task needs."""
    of_task: Callable[[Any], Sequence[Path]] = lambda _: ()
    """Files and folders that one task needs."""
    gpus: int = 0
    """Of a cluster's, for each task."""
    gpu_names: Sequence[str] = ()
    """Of this machine's, for its workers to share: each sees one; as CUDA_VISIBLE_DEVICES calls them."""
    shipped: Sequence[Path] = ()
    """Files that every task needs, and that are sent to machines which do not see them."""
    moved: Callable[[Any, Mapping[Path, Path]], Any] = lambda setting, _: setting
    """The work's setting, with the shipped files where they lie on the machine that it is for."""


NO_NEEDS = Needs()


Answer = tuple[str, Any]
"""("result", what the work returned) or ("error", (what it raised, where))."""


def attempt(
    work: Callable[[], Work[Argument, Result]], argument: Argument, tell: Tell, board: Board | None, key: str
) -> Answer:
    """Do one task and list it as running meanwhile; returns the answer for `outcome_of`. `work` may raise as well."""
    with contextlib.ExitStack() as stack:
        note = stack.enter_context(board.running(key)) if board is not None else None

        def both(facts: Facts) -> None:
            if note is not None:
                note(facts)
            tell(facts)

        try:
            return "result", work()(argument, both)
        except BrokenPipeError:  # nobody is there to be told
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver raises it
            return "error", (_sendable(error), traceback.format_exc())


def outcome_of(argument: Argument, answer: Answer, deaths: int) -> Outcome[Argument, Any]:
    """What an answer says of its task."""
    kind, content = answer
    if kind == "result":
        return Outcome(argument, result=content, deaths=deaths)
    error, text = content
    error.__cause__ = WorkerTracebackError(text)
    return Outcome(argument, error=error, deaths=deaths)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own object, made a moment ago
    except Exception:  # noqa: BLE001 - an exception may refuse in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
