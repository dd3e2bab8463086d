"""Cells on their way through the workers: the longest first, and none before what it starts from."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from durable import tasks
from durable.board import Board, Facts
from durable.engines import LOCAL, Engine
from durable.machine import available_cores, available_memory, gpu_names
from durable.progress import ProgressCallback, unheard
from durable.signals import StopRequest
from durable.tasks import Needs, Outcome, Posting, Work
from train.glue.finetune import StoppedError

# Weights, gradients and two moments, then what activations and libraries take.
COPIES_OF_WEIGHTS, BYTES_BESIDE = 4, 1 << 30


class Order(Protocol):
    """What a worker is sent."""

    @property
    def place(self) -> int:
        """Number of the job in the queue."""

    @property
    def paths(self) -> Sequence[Path]:
        """What it reads."""


Cell = TypeVar("Cell")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job(Generic[Cell]):
    """A cell that is to be trained."""

    cell: Cell
    name: str
    key: str
    """Its name on the board."""
    steps: int
    cost: float
    """In any unit that is the same for all jobs of a queue."""
    order: Callable[[int], Order]
    """Makes what a worker is sent from the job's place; called when a worker is free."""
    after: Path | None = None
    """Folder that another job leaves behind; the job waits until those without one are through."""
    beside: Sequence[str] = ()
    """Names on the board of what else is done with it."""


@dataclass(frozen=True)
class Watch:
    """Who hears of the progress, and who may end the run."""

    progress: ProgressCallback
    stop: StopRequest | None
    notice: Callable[[str], None] = unheard
    """Hears of jobs that are begun again since their worker was lost."""

    @property
    def stopped(self) -> bool:
        return self.stop is not None and self.stop.requested


@dataclass(frozen=True)
class Place:
    """Where the jobs run, and on which board they are listed."""

    board: Board
    device: torch.device
    """Of this process; on a cluster, of each machine."""
    engine: Engine = LOCAL
    gpus: Sequence[str] = ()
    """Of this machine, that are divided among workers; see gpus_of."""

    @property
    def device_of_workers(self) -> torch.device:
        """A worker that is shown one GPU finds it at index 0, whatever number it has here."""
        return torch.device("cuda", 0) if self.gpus else self.device

    @property
    def needs(self) -> Needs:
        gpus = int(self.engine is not LOCAL and self.device.type == "cuda")
        return Needs((self.board.out,), _paths_of, gpus, self.gpus)


class Queue(Generic[Cell, Result]):
    """Jobs, and what became of them.

    `start((setting, device))` is called in every worker; its result takes order after order.
    """

    def __init__(
        self,
        jobs: Iterable[Job[Cell]],
        start: Callable[[Any], Work[Any, Result]],
        setting: Any,
        watch: Watch,
        place: Place,
        lost: Callable[[Path], str] = str,
    ) -> None:
        """`lost` tells why a folder that a job waits for is not there."""
        # The longest first, so that no long one is left to the end alone.
        self._jobs = sorted(jobs, key=lambda job: (job.after is not None, -job.cost))
        self._start, self._setting, self._watch, self._place, self._lost = start, setting, watch, place, lost
        self._posting: Posting[Order] = Posting(place.board, lambda order: self._jobs[order.place].key)
        self._total = sum(job.steps for job in self._jobs)
        self._done = [0] * len(self._jobs)
        self.trained = 0
        self.failed: dict[str, str] = {}
        self.failures: list[tuple[Cell, str]] = []
        """Those of `failed` that were tried."""
        self.unstarted: dict[str, str] = {}
        """Those of `failed` that had nothing to start from."""

    @property
    def left(self) -> int:
        """Jobs that were not reached."""
        return len(self._jobs) - self.trained - len(self.failed)

    def results(self, workers: int | None) -> Iterator[tuple[Cell, Result]]:
        """Every cell with its result, as they end; failures are noted in `failed`.

        One at a time runs in this process. None is as many at a time as the engine has room for.
        """
        waits = [job.after is not None for job in self._jobs]
        phases = [i for i, wait in enumerate(waits) if not wait], [i for i, wait in enumerate(waits) if wait]
        # One way for both: what this process had computed on a GPU would stay in its memory beside the workers.
        here = self._place.engine is LOCAL and min(workers or available_cores(), max(map(len, phases))) < 2
        for places in phases:
            for outcome in self._in_this_process(places) if here else self._in_workers(places, workers):
                job = self._jobs[outcome.argument.place]
                self._done[outcome.argument.place] = job.steps
                if outcome.result is not None:
                    self.trained += 1
                    yield job.cell, outcome.result
                else:
                    deaths = f"its process was killed {outcome.deaths} times: out of memory?"
                    reason = deaths if outcome.error is None else _reason(outcome.error)
                    self.failed[job.name] = reason
                    self.failures.append((job.cell, reason))

    def _orders(self, places: Sequence[int]) -> Iterator[Order]:
        for place in places:
            if self._watch.stopped:
                return
            job = self._jobs[place]
            if job.after is not None and not job.after.is_dir():
                self.failed[job.name] = self.unstarted[job.name] = self._lost(job.after)
                continue
            yield job.order(place)

    def _in_workers(self, places: Sequence[int], count: int | None) -> Iterator[Outcome[Order, Result]]:
        if not places:
            return
        place, watch = self._place, tasks.Watch(self._hear, self._watch.stop, self._posting, self._lose)
        count = None if count is None else min(count, len(places))
        setting = self._setting, str(place.device_of_workers)
        executor = place.engine.executor(self._start, setting, count, watch, place.needs)
        yield from executor.run(self._orders(places))

    def _in_this_process(self, places: Sequence[int]) -> Iterator[Outcome[Order, Result]]:
        work = self._start((self._setting, str(self._place.device))) if places else None
        for order in self._orders(places):
            assert work is not None
            outcome = self._attempt(work, order)
            if outcome is None:
                return
            self._posting.settle(outcome)
            yield outcome

    def _attempt(self, work: Work[Order, Result], order: Order) -> Outcome[Order, Result] | None:
        """What becomes of one job in this process; None if it was stopped."""
        job, board = self._jobs[order.place], self._place.board
        with contextlib.ExitStack() as running:
            notes = [running.enter_context(board.running(key)) for key in (job.key, *job.beside)]

            def tell(facts: Facts) -> None:
                if self._watch.stopped:
                    raise StoppedError
                for note in notes:
                    note(facts)
                self._hear(order, facts)

            try:
                return Outcome(order, result=work(order, tell))
            except StoppedError:
                return None
            except (ValueError, RuntimeError, OSError) as error:  # RuntimeError: out of a GPU's memory, say
                return Outcome(order, error=error)

    def _lose(self, order: Order, what: str) -> None:
        self._watch.notice(f"{self._jobs[order.place].name} is begun again: {what}")

    def _hear(self, order: Order, facts: Facts) -> None:
        self._done[order.place] = facts["done"]
        self._watch.progress(sum(self._done), self._total, {"cell": self._jobs[order.place].name})


def _paths_of(order: Order) -> Sequence[Path]:
    return order.paths


def gpus_of(device: torch.device, asked: str | None) -> tuple[str, ...]:
    """The GPUs of this machine that workers may be shown, as CUDA_VISIBLE_DEVICES calls them; none on a CPU.

    `asked` is what `device` was found for: None and `cuda` mean all that this process sees, `cuda:1` that one alone.
    Counting them makes no CUDA context, which would take memory of a GPU that a worker is to have.
    """
    if device.type != "cuda":
        return ()
    names = gpu_names(torch.cuda.device_count())
    return names if asked in {None, "cuda"} else names[device.index : device.index + 1]


def default_workers(gpus: Sequence[str], largest: int) -> int:
    """One process a GPU; on a CPU one a core, as far as memory goes for models of `largest` bytes."""
    if gpus:
        return len(gpus)
    return max(1, min(available_cores(), available_memory() // (COPIES_OF_WEIGHTS * largest + BYTES_BESIDE)))


def _reason(error: Exception) -> str:
    """One line: what is wrong, then what mends it."""
    text = str(error).splitlines()[0] if str(error) else ""
    text = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    return "; ".join([text, *getattr(error, "__notes__", [])])
