"""The grid of cells, checkpoints × tasks × seeds: each is run once, in one of several processes, and kept."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from durable.files import sweep_partials
from durable.locks import folder_lock
from durable.progress import ProgressCallback, silent
from durable.signals import StopRequest
from durable.workers import Outcome as WorkerOutcome
from durable.workers import Supervisor, Tell, Work
from train.device import find_device
from train.glue.cells import (
    NOISY,
    TEST,
    Cell,
    is_finished,
    open_folder,
    read_cells,
    read_grid,
    refuse_foreign_folder,
    write_cell,
)
from train.glue.checkpoint import Subject, find_subjects, load_config, load_tokenizer, usable_length
from train.glue.encode import load_encoded, read_encoded, save_encoded
from train.glue.finetune import Finetuned, StoppedError, finetune, steps_of
from train.glue.noise import noisy
from train.glue.protocol import Protocol
from train.glue.read import TaskData, read_task, read_test
from train.glue.table import Table, write_table
from train.glue.tasks import TASKS, Task

# Weights, gradients and two moments, then what activations and libraries take.
COPIES_OF_WEIGHTS, BYTES_BESIDE = 4, 1 << 30


@dataclass(frozen=True)
class Request:
    """What a run of the grid is asked for."""

    checkpoints: Sequence[Path]
    out: Path
    tasks: Sequence[Task]
    seeds: Sequence[int]
    protocol: Protocol = field(default_factory=Protocol)
    data_dir: Path | None = None
    """Folder of the official TSV files; None reads the hub."""
    predictions: bool = False
    """Also predict the test sets; a cell whose predictions are not there yet is trained again."""
    average: str = "nine"
    """Which of AVERAGES the table shows; cells do not depend on it."""
    which: str = "last"
    """Which checkpoints of a run folder: last, all or log."""
    device: str | None = None
    """None is CUDA where there is a GPU, else the CPU."""
    workers: int | None = None
    """Processes, each with one cell; None is one per core on a CPU, as far as memory goes, and one on a GPU."""


@dataclass(frozen=True)
class Outcome:
    """What a run of the grid did."""

    trained: int
    found: int
    """Cells that an earlier run had finished."""
    left: int
    """Cells that were asked for and not reached."""
    failed: Mapping[str, str]
    """Cells that ended in an error, and the error."""
    table: Table


def run_grid(
    request: Request,
    *,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Outcome:
    """Run the cells that are not there yet, and keep the table of the whole folder up to date.

    `progress` counts optimizer steps; `notice` hears of damaged checkpoints that are passed over. Once `stop` is
    requested the cells at hand are given up and the rest is left. A cell that fails is named in the outcome; the
    others go on. Raises TrainError for bad input, and where the folder holds cells of another protocol or other
    data.
    """
    device = find_device(request.device)
    subjects = _distinct(
        subject for path in request.checkpoints for subject in find_subjects(path, request.which, notice)
    )
    refuse_foreign_folder(request.out)
    data = {task.name: read_task(task, request.data_dir) for task in request.tasks}
    tests = {task.name: read_test(task, request.data_dir) for task in request.tasks} if request.predictions else {}
    for subject in subjects:
        load_tokenizer(subject)
    with folder_lock(request.out):
        sweep_partials(request.out)
        open_folder(request.out, subjects, data, request.protocol, from_hub=request.data_dir is None)
        cells = [Cell(subject, task, seed) for task in request.tasks for subject in subjects for seed in request.seeds]
        missing = [cell for cell in cells if not _is_done(cell, request, data[cell.task.name])]
        table = _write_table(request.out, request.average)
        run = _Run(request, device, data, tests, missing, _Watch(progress, stop))
        for cell, result in run.results():
            write_cell(cell, request.out, data[cell.task.name], request.protocol, result)
            table = _write_table(request.out, request.average)
    left = len(missing) - run.trained - len(run.failed)
    return Outcome(run.trained, len(cells) - len(missing), left, run.failed, table)


def _write_table(out: Path, average: str) -> Table:
    return write_table(out, read_cells(out), read_grid(out), average)


def _distinct(subjects: Iterable[Subject]) -> list[Subject]:
    distinct: dict[str, Subject] = {}
    for subject in subjects:
        distinct.setdefault(subject.weights, subject)
    return list(distinct.values())


@dataclass(frozen=True)
class _Order:
    """A cell as it is sent to a worker."""

    place: int
    subject: Subject
    task: str
    seed: int
    encoded: Path
    extra: Mapping[str, Path]
    """Arrow files by the name that their predictions get."""


def _is_done(cell: Cell, request: Request, data: TaskData) -> bool:
    predicted = not request.predictions or all(
        cell.prediction_path(request.out, name).is_file() for name in cell.task.test
    )
    return is_finished(cell, request.out, data, request.protocol) and predicted


@dataclass(frozen=True)
class _Watch:
    """Who hears of the progress, and who may end the run."""

    progress: ProgressCallback
    stop: StopRequest | None

    @property
    def stopped(self) -> bool:
        return self.stop is not None and self.stop.requested


class _Run:
    """The missing cells on their way through the workers."""

    def __init__(
        self,
        request: Request,
        device: torch.device,
        data: Mapping[str, TaskData],
        tests: Mapping[str, TaskData],
        cells: Sequence[Cell],
        watch: _Watch,
    ) -> None:
        self._request, self._device, self._data, self._tests, self._watch = request, device, data, tests, watch
        steps = {name: steps_of(len(task.train), request.protocol) for name, task in data.items()}
        # The longest first, so that no long one is left to the end alone; characters stand for tokens.
        cost = {name: steps[name] * _mean_characters(task) for name, task in data.items()}
        self._cells = sorted(cells, key=lambda cell: -cost[cell.task.name])
        self._total = sum(steps[cell.task.name] for cell in cells)
        self._steps, self._done = steps, [0] * len(cells)
        self.trained = 0
        self.failed: dict[str, str] = {}

    def results(self) -> Iterator[tuple[Cell, Finetuned]]:
        """Every cell with what became of its model, as they end; failures are noted in `failed`."""
        workers = min(self._request.workers or _default_workers(self._device, self._cells), len(self._cells))
        for outcome in self._in_this_process() if workers < 2 else self._in_workers(workers):
            cell = self._cells[outcome.argument.place]
            self._done[outcome.argument.place] = self._steps[cell.task.name]
            if outcome.result is not None:
                self.trained += 1
                yield cell, outcome.result
            elif outcome.error is not None:
                self.failed[cell.name] = _reason(outcome.error)
            else:
                self.failed[cell.name] = f"its process was killed {outcome.deaths} times: out of memory?"

    def _orders(self) -> Iterator[_Order]:
        for place, cell in enumerate(self._cells):
            if self._watch.stopped:
                return
            task = self._data[cell.task.name]
            length = usable_length(load_config(cell.subject), self._request.protocol.max_length)
            folder, protocol = self._request.out / "encoded", self._request.protocol
            extra: dict[str, Path] = {}
            encoded = save_encoded(folder, task, cell.subject, length)
            if protocol.noise != "none":
                damaged = noisy(task, protocol.noise, protocol.noise_rate, cell.seed)
                place_of = save_encoded(folder, damaged, cell.subject, length)
                extra |= {f"{NOISY}{name}": place_of / f"{name}.arrow" for name in damaged.splits}
            if self._request.predictions:
                place_of = save_encoded(folder, self._tests[cell.task.name], cell.subject, length)
                extra |= {f"{TEST}{name}": place_of / f"{name}.arrow" for name in cell.task.test}
            yield _Order(place, cell.subject, cell.task.name, cell.seed, encoded, extra)

    def _in_workers(self, count: int) -> Iterator[WorkerOutcome[_Order, Finetuned]]:
        setting = self._request.protocol, str(self._device)
        supervisor: Supervisor[_Order, Finetuned] = Supervisor(
            start, setting, count, on_report=self._report, stop=self._watch.stop
        )
        yield from supervisor.run(self._orders())

    def _in_this_process(self) -> Iterator[WorkerOutcome[_Order, Finetuned]]:
        work = start((self._request.protocol, str(self._device)))
        for order in self._orders():
            try:
                yield WorkerOutcome(order, result=work(order, functools.partial(self._on_step, order)))
            except StoppedError:
                return
            except (ValueError, RuntimeError, OSError) as error:  # RuntimeError: out of a GPU's memory, say
                yield WorkerOutcome(order, error=error)

    def _on_step(self, order: _Order, step: int) -> None:
        if self._watch.stopped:
            raise StoppedError
        self._report(order, step)

    def _report(self, order: _Order, step: int) -> None:
        self._done[order.place] = step
        self._watch.progress(sum(self._done), self._total, {"cell": self._cells[order.place].name})


def start(setting: tuple[Protocol, str]) -> Work[_Order, Finetuned]:
    """What a worker does with every cell it is sent: fine-tune, and tell after each step."""
    protocol, device = setting

    def work(order: _Order, tell: Tell) -> Finetuned:
        task = load_encoded(order.encoded, TASKS[order.task])
        extra = {name: read_encoded(path) for name, path in order.extra.items()}
        return finetune(order.subject, task, protocol, order.seed, torch.device(device), tell, extra)

    return work


def _default_workers(device: torch.device, cells: Sequence[Cell]) -> int:
    if device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    largest = max((cell.subject.size for cell in cells), default=0)
    return max(1, min(cores, _available_memory() // (COPIES_OF_WEIGHTS * largest + BYTES_BESIDE)))


def _available_memory() -> int:
    with contextlib.suppress(FileNotFoundError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _mean_characters(task: TaskData) -> float:
    return sum(len(text) for column in task.train.text for text in column) / len(task.train)


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
