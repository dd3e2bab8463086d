"""The grid of cells, checkpoints × tasks × seeds: each is run once, in one of several processes, and kept."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch

from durable.files import sweep_partials
from durable.locks import folder_lock
from durable.progress import ProgressCallback, silent
from durable.signals import StopRequest
from durable.workers import Tell, Work
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
    write_labels,
)
from train.glue.checkpoint import Subject, distinct, find_subjects, load_config, load_tokenizer, usable_length
from train.glue.encode import load_encoded, read_encoded, save_encoded
from train.glue.finetune import Finetuned, finetune, steps_of
from train.glue.layouts import write_table
from train.glue.noise import noisy
from train.glue.protocol import Protocol
from train.glue.published import read_published
from train.glue.queue import Job, Queue, Watch, default_workers
from train.glue.read import TaskData, read_task, read_test, source_of
from train.glue.start import SOURCE, missing_cells, model_folder, save_model, started_from, with_source
from train.glue.table import Table
from train.glue.tasks import TASKS, Task


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
    published: bool = False
    """Whether the table also shows what others published."""
    which: str = "last"
    """Which checkpoints of a run folder: last, all or log."""
    device: str | None = None
    """None is CUDA where there is a GPU, else the CPU."""
    workers: int | None = None
    """Processes, each with one cell; None is one per core on a CPU, as far as memory goes, and one on a GPU."""


TableKind = TypeVar("TableKind")


@dataclass(frozen=True)
class Outcome(Generic[TableKind]):
    """What a run of the grid did."""

    trained: int
    found: int
    """Cells that an earlier run had finished."""
    left: int
    """Cells that were asked for and not reached."""
    failed: Mapping[str, str]
    """Cells that ended in an error, and the error."""
    table: TableKind


def run_grid(
    request: Request,
    *,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Outcome[Table]:
    """Run the cells that are not there yet, and keep the table of the whole folder up to date.

    `progress` counts optimizer steps; `notice` hears of damaged checkpoints that are passed over. Once `stop` is
    requested the cells at hand are given up and the rest is left. A cell that fails is named in the outcome; the
    others go on. Raises TrainError for bad input, and where the folder holds cells of another protocol or other
    data.
    """
    request = replace(request, tasks=with_source(request.tasks, request.protocol))
    device = find_device(request.device)
    subjects = distinct(
        subject for path in request.checkpoints for subject in find_subjects(path, request.which, notice)
    )
    refuse_foreign_folder(request.out)
    data = {task.name: read_task(task, request.data_dir) for task in request.tasks}
    tests = {task.name: read_test(task, request.data_dir) for task in request.tasks} if request.predictions else {}
    for subject in subjects:
        load_tokenizer(subject)
    with folder_lock(request.out):
        sweep_partials(request.out)
        sources = {task.name: source_of(task, request.data_dir) for task in request.tasks}
        open_folder(request.out, subjects, data, request.protocol, sources=sources)
        for task in data.values():
            write_labels(request.out, task)
        cells = [Cell(subject, task, seed) for task in request.tasks for subject in subjects for seed in request.seeds]
        unfinished = [cell for cell in cells if not _is_done(cell, request, data[cell.task.name])]
        missing = missing_cells(cells, unfinished, request.out, request.protocol)
        table = _write_table(request)
        setting = request.protocol, str(device)
        jobs = _jobs(request, data, tests, missing)
        queue: Queue[Cell, Finetuned] = Queue(jobs, start, setting, Watch(progress, stop), lost=_no_start)
        largest = max((cell.subject.size for cell in missing), default=0)
        for cell, result in queue.results(request.workers or default_workers(device, largest)):
            write_cell(cell, request.out, data[cell.task.name], request.protocol.of_task(cell.task), result)
            table = _write_table(request)
    return Outcome(queue.trained, len(cells) - len(missing), queue.left, queue.failed, table)


def _no_start(folder: Path) -> str:
    return f"the cell that it starts from, {folder.name}, has left no model"


def _write_table(request: Request) -> Table:
    theirs = read_published() if request.published else None
    return write_table(request.out, read_cells(request.out), read_grid(request.out), request.average, theirs)


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
    keep: Path | None
    """Folder for the fine-tuned model, where others start from it."""


def _is_done(cell: Cell, request: Request, data: TaskData) -> bool:
    predicted = not request.predictions or all(
        cell.prediction_path(request.out, name).is_file() for name in cell.task.test
    )
    return is_finished(cell, request.out, data, request.protocol.of_task(cell.task)) and predicted


def _jobs(
    request: Request, data: Mapping[str, TaskData], tests: Mapping[str, TaskData], cells: Sequence[Cell]
) -> Iterator[Job[Cell]]:
    for cell in cells:
        task = data[cell.task.name]
        steps = steps_of(len(task.train), request.protocol.of_task(cell.task))
        source = started_from(cell, request.protocol)
        yield Job(
            cell=cell,
            name=cell.name,
            steps=steps,
            cost=steps * _mean_characters(task),  # characters stand for tokens
            order=functools.partial(_order, request, cell, task, tests.get(cell.task.name)),
            after=None if source is None else model_folder(request.out, source),
        )


def _order(request: Request, cell: Cell, data: TaskData, test: TaskData | None, place: int) -> _Order:
    """Tokenizes what is not tokenized yet."""
    protocol, folder = request.protocol.of_task(cell.task), request.out / "encoded"
    length = usable_length(load_config(cell.subject), protocol.max_length)
    extra: dict[str, Path] = {}
    encoded = save_encoded(folder, data, cell.subject, length)
    if protocol.noise != "none":
        damaged = noisy(data, protocol.noise, protocol.noise_rate, cell.seed)
        place_of = save_encoded(folder, damaged, cell.subject, length)
        extra |= {f"{NOISY}{name}": place_of / f"{name}.arrow" for name in damaged.splits}
    if test is not None:
        place_of = save_encoded(folder, test, cell.subject, length)
        extra |= {f"{TEST}{name}": place_of / f"{name}.arrow" for name in cell.task.test}
    source = started_from(cell, protocol)
    keep = protocol.mnli_start and cell.task is SOURCE
    return _Order(
        place=place,
        subject=cell.subject if source is None else replace(cell.subject, folder=model_folder(request.out, source)),
        task=cell.task.name,
        seed=cell.seed,
        encoded=encoded,
        extra=extra,
        keep=model_folder(request.out, cell) if keep else None,
    )


def start(setting: tuple[Protocol, str]) -> Work[_Order, Finetuned]:
    """What a worker does with every cell it is sent: fine-tune, and tell after each step."""
    protocol, device = setting

    def work(order: _Order, tell: Tell) -> Finetuned:
        task = load_encoded(order.encoded, TASKS[order.task])
        settings = protocol.of_task(task.task)
        extra = {name: read_encoded(path) for name, path in order.extra.items()}
        keep = None if order.keep is None else functools.partial(save_model, order.keep)
        return finetune(order.subject, task, settings, order.seed, torch.device(device), tell, extra, keep)

    return work


def _mean_characters(task: TaskData) -> float:
    return sum(len(text) for column in task.train.text for text in column) / len(task.train)
