"""Local worker processes that are watched: one may be killed without taking the rest of the work with it.

multiprocessing.Pool waits for ever when a worker is killed, and ProcessPoolExecutor fails every task that is left.
Here a task whose worker dies is given to a fresh worker, and left out when that has happened `attempts` times.
"""

import contextlib
import multiprocessing
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any, Generic, TypeVar

from durable.signals import HANDLED, StopRequest

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Tell = Callable[[Any], None]
"""Given to the work: sends facts to the parent, at most every SECONDS_BETWEEN_REPORTS."""
Work = Callable[[Argument, Tell], Result]

SECONDS_BETWEEN_REPORTS = 0.2
ATTEMPTS = 3


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


class WorkerTracebackError(Exception):
    """Where in the worker an error was raised; the cause of the error that the parent sees."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class _Task(Generic[Argument]):
    argument: Argument
    deaths: int = 0


@dataclass
class _Worker:
    process: ForkServerProcess
    connection: Connection
    task: _Task[Any] | None = None


@dataclass
class Supervisor(Generic[Argument, Result]):
    """Runs tasks in `count` worker processes; each calls `start(setting)` once, and what it returns for every task.

    `start` is a function of a module; `setting` is its argument. It, the tasks and the results are sent to and
    from processes of this program.
    """

    start: Callable[[Any], Work[Argument, Result]]
    setting: Any
    count: int
    attempts: int = ATTEMPTS
    on_report: Callable[[Argument, Any], None] | None = None
    stop: StopRequest | None = None
    _workers: list[_Worker] = field(default_factory=list, init=False)

    def run(self, tasks: Iterable[Argument]) -> Iterator[Outcome[Argument, Result]]:
        """Yield the outcome of every task as it ends. `tasks` is asked for the next one when a worker is free.

        A stop request ends the run early: the workers are killed, and what they were doing is not done. Closing
        the iterator does the same.
        """
        waiting = (_Task(argument) for argument in tasks)
        again: list[_Task[Argument]] = []
        try:
            while self._hand_out(waiting, again):
                if self.stop is not None and self.stop.requested:
                    return
                for worker in self._ready():
                    outcome = self._hear(worker, again)
                    if outcome is not None:
                        yield outcome
        finally:
            self._end()

    def _hand_out(self, waiting: Iterator[_Task[Argument]], again: list[_Task[Argument]]) -> bool:
        """Give tasks to idle workers, starting workers as needed; false when nothing is left to wait for."""
        while sum(worker.task is not None for worker in self._workers) < self.count:
            task = again.pop() if again else next(waiting, None)
            if task is None:
                break
            worker = next((worker for worker in self._workers if worker.task is None), None) or self._begin()
            worker.task = task
            with contextlib.suppress(BrokenPipeError):  # it died while idle: _hear notices
                worker.connection.send(task.argument)
        return any(worker.task is not None for worker in self._workers)

    def _begin(self) -> _Worker:
        # A fork of a process that has imported the work and started no thread: quick like fork, safe like spawn.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.start.__module__])
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.start, self.setting), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _ready(self) -> list[_Worker]:
        ready = wait([worker.connection for worker in self._workers], timeout=SECONDS_BETWEEN_REPORTS)
        return [worker for worker in self._workers if worker.connection in ready]

    def _hear(self, worker: _Worker, again: list[_Task[Argument]]) -> Outcome[Argument, Result] | None:
        """Take one message: a report, an outcome, or the silence of the dead."""
        task = worker.task
        try:
            kind, content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return self._mourn(task, again) if task else None
        assert task is not None
        if kind == "report":
            if self.on_report is not None:
                self.on_report(task.argument, content)
            return None
        worker.task = None
        if kind == "error":
            error, text = content
            error.__cause__ = WorkerTracebackError(text)
            return Outcome(task.argument, error=error, deaths=task.deaths)
        return Outcome(task.argument, result=content, deaths=task.deaths)

    def _mourn(self, task: _Task[Argument], again: list[_Task[Argument]]) -> Outcome[Argument, Result] | None:
        task.deaths += 1
        if task.deaths < self.attempts:
            again.append(task)
            return None
        return Outcome(task.argument, deaths=task.deaths)

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.kill()
        worker.process.join()

    def _end(self) -> None:
        """Idle workers leave by themselves; the others are killed: nothing that they write is whole yet."""
        for worker in list(self._workers):
            self._bury(worker)


def start_importing(module: str) -> None:
    """Begin to import what workers will need, in the process they will come from, while this one does its own part."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
    forkserver.ensure_running()


def _serve(connection: Connection, start: Callable[[Any], Work[Argument, Result]], setting: Any) -> None:
    """The worker's side: until the parent is gone, receive a task, send back what became of it."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to stop
    work: Work[Argument, Result] | None = None
    last = 0.0

    def tell(facts: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_REPORTS:
            last = now
            connection.send(("report", facts))

    try:
        while True:
            task = connection.recv()
            try:
                work = work or start(setting)
                answer: tuple[str, Any] = ("result", work(task, tell))
            except BrokenPipeError:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
                answer = ("error", (_sendable(error), traceback.format_exc()))
            connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own object, made a moment ago
    except Exception:  # noqa: BLE001 - an exception may refuse in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
