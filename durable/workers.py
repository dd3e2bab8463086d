"""Local worker processes that are watched: one may be killed without taking the rest of the work with it.

multiprocessing.Pool waits for ever when a worker is killed, and ProcessPoolExecutor fails every task that is left.
Here a task whose worker dies is given to a fresh worker, and left out when that has happened `attempts` times.
durable/ray_tasks.py does the same on the machines of a Ray cluster.
"""

import contextlib
import multiprocessing
import os
import selectors
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Generic

from durable.board import Board, Facts
from durable.signals import HANDLED
from durable.tasks import ATTEMPTS, Argument, Outcome, Result, Start, Watch, Work, attempt, outcome_of

SECONDS_BETWEEN_REPORTS = 0.2


@dataclass
class _Task(Generic[Argument]):
    argument: Argument
    deaths: int = 0


@dataclass
class _Worker:
    process: ForkServerProcess
    connection: Connection
    place: int
    """Its number among those that run; the next one takes that of a dead one."""
    task: _Task[Any] | None = None


@dataclass
class Supervisor(Generic[Argument, Result]):
    """Runs tasks in `count` worker processes; each calls `start(setting)` once, and what it returns for every task.

    `start` is a function of a module; `setting` is its argument. It, the tasks and the results are sent to and
    from processes of this program.
    """

    start: Start[Argument, Result]
    setting: Any
    count: int
    watch: Watch[Argument] = field(default_factory=Watch)
    attempts: int = ATTEMPTS
    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES calls them: a worker sees one alone; where workers are more they share them in turn."""
    _workers: list[_Worker] = field(default_factory=list, init=False)
    _selector: selectors.BaseSelector = field(init=False)

    def run(self, tasks: Iterable[Argument]) -> Iterator[Outcome[Argument, Result]]:
        """Yield the outcome of every task as it ends. `tasks` is asked for the next one when a worker is free.

        A stop request ends the run early: the workers are killed, and what they were doing is not done. Closing
        the iterator does the same.
        """
        self._selector = selectors.DefaultSelector()
        waiting = (_Task(argument) for argument in tasks)
        again: list[_Task[Argument]] = []
        try:
            while self._hand_out(waiting, again):
                if self.watch.stopped:
                    return
                for worker in self._ready():
                    outcome = self._hear(worker, again)
                    if outcome is not None:
                        if self.watch.posting is not None:
                            self.watch.posting.settle(outcome)
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
                worker.connection.send((task.argument, self.watch.key(task.argument)))
        return any(worker.task is not None for worker in self._workers)

    def _begin(self) -> _Worker:
        # A fork of a process that has imported the work and started no thread: quick like fork, safe like spawn.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.start.__module__])
        ours, theirs = context.Pipe()
        place = min(set(range(self.count)) - {worker.place for worker in self._workers})
        gpu = self.gpus[place % len(self.gpus)] if self.gpus else None
        what = theirs, self.start, self.setting, self.watch.board, gpu
        process = context.Process(target=_serve, args=what, daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours, place)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _ready(self) -> list[_Worker]:
        return [key.data for key, _ in self._selector.select(SECONDS_BETWEEN_REPORTS)]

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
            if self.watch.on_report is not None:
                self.watch.on_report(task.argument, content)
            return None
        worker.task = None
        return outcome_of(task.argument, (kind, content), task.deaths)

    def _mourn(self, task: _Task[Argument], again: list[_Task[Argument]]) -> Outcome[Argument, Result] | None:
        task.deaths += 1
        if task.deaths < self.attempts:
            if self.watch.on_loss is not None:
                self.watch.on_loss(task.argument, "its process was killed")
            again.append(task)
            return None
        return Outcome(task.argument, deaths=task.deaths)

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
        worker.process.kill()
        worker.process.join()

    def _end(self) -> None:
        """Idle workers leave by themselves; the others are killed: nothing that they write is whole yet."""
        for worker in list(self._workers):
            self._bury(worker)
            if worker.task is not None and self.watch.board is not None:
                self.watch.board.stopped(self.watch.key(worker.task.argument))
        self._selector.close()


def start_importing(module: str) -> None:
    """Begin to import what workers will need, in the process they will come from, while this one does its own part."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
    forkserver.ensure_running()


def _serve(
    connection: Connection, start: Start[Argument, Result], setting: Any, board: Board | None, gpu: str | None
) -> None:
    """The worker's side: until the parent is gone, receive a task, send back what became of it."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when a process first turns to CUDA, which imports do not
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to stop
    work: Work[Argument, Result] | None = None
    last = 0.0

    def started() -> Work[Argument, Result]:
        nonlocal work
        work = work or start(setting)
        return work

    def tell(facts: Facts) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_REPORTS:
            last = now
            connection.send(("report", facts))

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            argument, key = connection.recv()
            connection.send(attempt(started, argument, tell, board, key))
