"""The grid of cells, checkpoints × tasks × seeds: each is run once, by one of several workers, and kept.

A run may be divided: the cells of each slice are trained by a command of its own, and one more writes the table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from durable.board import Board, Entry, Failure
from durable.engines import LOCAL
from durable.errors import with_hint
from durable.files import sweep_partials
from durable.locks import folder_lock
from durable.progress import ProgressCallback, silent
from durable.signals import StopRequest
from durable.slices import FINISH, MOST_SLICES, Slice, parse_slice
from train.device import find_device
from train.errors import TrainError
from train.glue.cells import (
    GRID,
    Cell,
    has_predicted,
    is_finished,
    open_folder,
    read_cells,
    read_glue_grid,
    refuse_foreign_folder,
)
from train.glue.checkpoint import distinct, find_subjects
from train.glue.failures import failure_notes, known_failure
from train.glue.files import check_files
from train.glue.finetune import steps_of
from train.glue.labels import write_labels
from train.glue.layouts import write_table
from train.glue.loading import load_tokenizer, say_untrained
from train.glue.order import jobs_of, start
from train.glue.published import read_published
from train.glue.queue import Job, Place, Queue, Watch, default_workers, gpus_of
from train.glue.read import TaskData, read_task, read_test, source_of
from train.glue.request import Outcome, Request
from train.glue.rescore import refuse_edited_cells
from train.glue.stacks import Harvest, Results, Stack, board_key, stacks_of
from train.glue.start import missing_cells, started_from, with_source
from train.glue.table import Table, table_of

AGAIN = "symbert slurm glue, with the same arguments, opens it and prints what trains the cells"


def run_grid(
    request: Request,
    *,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Outcome[Table]:
    """Run the cells that are not there yet, and keep the table of the whole folder up to date.

    `progress` counts optimizer steps; `notice` hears of damaged checkpoints that are passed over. Once `stop` is
    requested the cells at hand are given up and the rest is left. A cell that fails is named in the outcome and the
    table; the others go on, and the next run tries it again where `retry_failed` asks for that. Raises TrainError for
    bad input, and where the folder holds cells of another protocol or other data.
    """
    grid = _Grid(request, notice)
    if request.slice is not None and not (request.out / GRID).is_file():
        raise with_hint(TrainError(f"{request.out} was not opened for slices"), AGAIN)
    if request.slice == FINISH:
        return grid.gathered()
    slice_ = None if request.slice is None else parse_slice(request.slice)
    with folder_lock(request.out, shared=slice_ is not None):
        grid.open(slice_)
        cells = grid.cells if slice_ is None else grid.of_slice(slice_)
        failed, missing = grid.known_failures(cells), grid.missing(cells)
        for cell, reason in failed.items():
            grid.board.fail(board_key(cell), Failure(reason))
        table = grid.table(write=slice_ is None)
        place = Place(grid.board, grid.device, request.engine, grid.gpus)
        stacks, harvest = grid.stacks(missing), Harvest(request.out, (grid.data, grid.tests), request.protocol, notice)
        queue: Queue[Stack, Results] = Queue(
            grid.jobs(stacks), start, request.protocol, Watch(progress, stop, notice), place, lost=_no_start
        )
        for stack, results in queue.results(grid.workers(stacks)):
            harvest.take(stack, results)
            table = grid.table(write=slice_ is None)
        for stack, reason in queue.failures:
            harvest.fail(stack, reason)
            table = grid.table(write=slice_ is None)
        failures = harvest.failed | queue.unstarted
        left = len(missing) - harvest.trained - len(failures)
        if slice_ is None and not (left or failures or failed):
            grid.board.end()
    earlier = {cell.name: f"{reason} (in an earlier run)" for cell, reason in failed.items()}
    found = len(cells) - len(missing) - len(failed)
    return Outcome(harvest.trained, found, left, {**earlier, **failures}, table)


def open_slices(request: Request, count: int | None, notice: Callable[[str], None] = print) -> tuple[list[int], int]:
    """Write down what slices are to train; returns those with something left to do, and how many there are.

    `count` None is one a cell, at most MOST_SLICES; `notice` hears of cells that failed and are to be left so. Raises
    as run_grid does.
    """
    grid = _Grid(request, notice)
    with folder_lock(request.out):
        grid.open(None, "slurm")
        count = count or min(len(grid.groups()), MOST_SLICES)
        left = [number for number in range(count) if grid.missing(grid.of_slice(Slice(number, count)))]
        failed = grid.known_failures(grid.cells)
        for cell, reason in failed.items():
            notice(f"{cell.name} failed in an earlier run: {reason}; --retry-failed tries it again")
        if not left:
            grid.table(write=True)
            grid.board.end()
    return left, count


class _Grid:
    """The cells of a request, and the folder that they are kept in."""

    def __init__(self, request: Request, notice: Callable[[str], None]) -> None:
        request = replace(request, tasks=with_source(request.tasks, request.protocol))
        self.request, self.out, self.board = request, request.out, Board(request.out)
        self.device = _device(request)
        self.gpus = gpus_of(self.device, request.device) if request.engine is LOCAL else ()
        self.subjects = distinct(
            (subject for path in request.checkpoints for subject in find_subjects(path, request.which, notice)), notice
        )
        refuse_foreign_folder(request.out)
        data_dir, names = request.data_dir, request.tasks
        if data_dir is not None:
            check_files(names, data_dir, with_tests=request.predictions)
        self.data = {task.name: read_task(task, data_dir) for task in names}
        self.tests = {task.name: read_test(task, data_dir) for task in names} if request.predictions else {}
        # Optimizer steps times characters, which stand for tokens.
        self._costs = {
            name: steps_of(len(task.train), request.protocol.of_task(task.task)) * _mean_characters(task)
            for name, task in self.data.items()
        }
        for subject in self.subjects:
            load_tokenizer(subject)
            say_untrained(subject, request.protocol.max_length, notice)
        self.cells = [
            Cell(subject, task, seed) for task in request.tasks for subject in self.subjects for seed in request.seeds
        ]

    def open(self, slice_: Slice | None, engine: str | None = None) -> None:
        """Write down what the folder is for, and list the cells; that of a slice is there."""
        if slice_ is None:
            sweep_partials(self.out)
        sources = {task.name: source_of(task, self.request.data_dir) for task in self.request.tasks}
        open_folder(self.out, self.subjects, self.data, self.request.protocol, sources=sources)
        for task in self.data.values():
            write_labels(self.out, task)
        refuse_edited_cells(self.out)
        if slice_ is not None:
            self.board.join(slice_.name)
            return
        entries = {
            board_key(cell): Entry(cell.name, self._cost(cell), str(cell.path(self.out).relative_to(self.out)))
            for cell in self.cells
        }
        self.board.begin("glue", engine or self.request.engine.name, "cells", entries)

    def groups(self) -> list[list[Cell]]:
        """The cells, those together of which one starts from another, the longest groups first.

        All seeds of a task are one group where stacks are asked for; the device, which may ask too, is not known yet.
        """
        groups: dict[Cell, list[Cell]] = {}
        for cell in self.cells:
            first = started_from(cell, self.request.protocol) or cell
            groups.setdefault(replace(first, seed=0) if self.request.stack_seeds else first, []).append(cell)
        return sorted(groups.values(), key=lambda group: -sum(map(self._cost, group)))

    def of_slice(self, slice_: Slice) -> list[Cell]:
        return [cell for group in slice_.of(self.groups()) for cell in group]

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those that are to be trained."""
        failed = self.known_failures(cells)
        tried = [cell for cell in self.unfinished(cells) if cell not in failed]
        return [c for c in missing_cells(cells, tried, self.out, self.request.protocol) if c not in failed]

    def unfinished(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if not self._is_done(cell)]

    def known_failures(self, cells: Sequence[Cell]) -> dict[Cell, str]:
        """Cells that failed in an earlier run, and why; none where they are to be tried again."""
        if self.request.retry_failed:
            return {}
        found = {}
        for cell in self.unfinished(cells):
            protocol = self.request.protocol.of_task(cell.task)
            if error := known_failure(cell, self.out, self.data[cell.task.name], protocol):
                found[cell] = error
        return found

    def stacks(self, cells: Sequence[Cell]) -> list[Stack]:
        """What is trained together."""
        wanted = self.request.stack_seeds
        if wanted if wanted is not None else self.device.type == "cuda":
            return stacks_of(cells, self.out, self.request.protocol)
        return [Stack.alone(cell) for cell in cells]

    def jobs(self, stacks: Sequence[Stack]) -> Iterator[Job[Stack]]:
        return jobs_of(stacks, self.out, self.request.protocol, (self.data, self.tests), self._cost)

    def workers(self, stacks: Sequence[Stack]) -> int | None:
        """Stacks at a time; None leaves it to the engine."""
        if self.request.workers is not None or self.request.engine is not LOCAL:
            return self.request.workers
        largest = max((len(stack.cells) * stack.cells[0].subject.size for stack in stacks), default=0)
        return default_workers(self.gpus, largest)

    def table(self, *, write: bool) -> Table:
        """The table of all finished cells of the folder."""
        cells, grid = read_cells(self.out), read_glue_grid(self.out)
        theirs = read_published() if self.request.published else None
        remarks = failure_notes(self.out, grid)
        if write:
            return write_table(self.out, cells, grid, self.request.average, theirs, remarks)
        table = table_of(cells, grid, self.request.average)
        return replace(table, published=theirs, remarks=[*table.remarks, *remarks])

    def gathered(self) -> Outcome[Table]:
        """What slices have made of the cells."""
        with folder_lock(self.out):
            sweep_partials(self.out)
            refuse_edited_cells(self.out)
            unfinished, told = self.unfinished(self.cells), self.board.failures()
            failed = {cell.name: reason for cell, reason in self.known_failures(self.cells).items()}
            failed |= {cell.name: told[board_key(cell)].reason for cell in unfinished if board_key(cell) in told}
            table = self.table(write=True)
            if not unfinished:
                self.board.end()
        return Outcome(0, len(self.cells) - len(unfinished), len(unfinished) - len(failed), failed, table)

    def _is_done(self, cell: Cell) -> bool:
        """Whether the cell is there, and with the predictions of the test sets at hand where these are asked for."""
        if not is_finished(cell, self.out, self.data[cell.task.name], self.request.protocol.of_task(cell.task)):
            return False
        return not self.tests or has_predicted(cell, self.out, self.tests[cell.task.name])

    def _cost(self, cell: Cell) -> float:
        return self._costs[cell.task.name]


def _device(request: Request) -> torch.device:
    if request.engine is LOCAL:
        return find_device(request.device)
    name = request.device or ("cuda" if request.engine.gpus() else "cpu")
    if name == "cuda" and not request.engine.gpus():
        raise with_hint(TrainError("--device cuda: the cluster has no GPU"), "--device cpu")
    return torch.device(name)


def _no_start(folder: Path) -> str:
    return f"the cell that it starts from, {folder.name}, has left no model"


def _mean_characters(task: TaskData) -> float:
    return sum(len(text) for column in task.train.text for text in column) / len(task.train)
