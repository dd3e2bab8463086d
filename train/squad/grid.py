"""Checkpoints × seeds on SQuAD: a folder of cells like GLUE's, run by the same queue.

OUT/grid.json                         protocol, assumptions, hash of the data, checkpoints
OUT/cells/<12 hex>/squad-<seed>.json  identity, scores, every prediction by the question's id; timing apart
OUT/table.md, table.json              every finished cell of the folder
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from durable.board import Board, Entry, Failure
from durable.engines import LOCAL
from durable.errors import with_hint
from durable.files import sweep_partials, write_json
from durable.locks import folder_lock
from durable.progress import ProgressCallback, silent
from durable.signals import StopRequest
from durable.tasks import Tell, Work
from train.device import find_device
from train.errors import TrainError
from train.glue.cells import (
    GRID,
    Cell,
    cell_record,
    is_finished,
    open_folder,
    read_cells,
    read_grid,
    refuse_foreign_folder,
)
from train.glue.checkpoint import Subject, distinct, find_subjects
from train.glue.failures import forget_failure, keep_failure, known_failure
from train.glue.finetune import steps_of
from train.glue.loading import load_tokenizer, say_untrained
from train.glue.queue import Job, Place, Queue, Watch, default_workers, gpus_of
from train.glue.request import Outcome
from train.glue.stacks import board_key
from train.squad.finetune import Answered, finetune_squad
from train.squad.protocol import ASSUMPTIONS, SquadProtocol
from train.squad.read import SQUAD, SquadData
from train.squad.rescore import refuse_edited_cells
from train.squad.score import scores_of
from train.squad.table import SquadTable, write_squad_table
from train.squad.windows import Windows, cut_into_windows


@dataclass(frozen=True)
class SquadRequest:
    """What a run is asked for."""

    checkpoints: Sequence[Path]
    out: Path
    data: SquadData
    seeds: Sequence[int]
    protocol: SquadProtocol
    retry_failed: bool = False
    """Whether cells that failed in an earlier run are tried again."""
    which: str = "last"
    """Which checkpoints of a run folder: last, all or log."""
    device: str | None = None
    workers: int | None = None


def run_squad(
    request: SquadRequest,
    *,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Outcome[SquadTable]:
    """Train the cells that are not there yet; raises, stops and names failures as train.glue.grid.run_grid does."""
    device = find_device(request.device)
    subjects = distinct(
        (subject for path in request.checkpoints for subject in find_subjects(path, request.which, notice)), notice
    )
    refuse_foreign_folder(request.out)
    out, data, protocol = request.out, request.data, request.protocol
    for subject in subjects:
        load_tokenizer(subject)
        say_untrained(subject, protocol.max_length, notice)
        cut_into_windows(data.train[:1], subject, protocol)
    with folder_lock(out):
        sweep_partials(out)
        _refuse_glue(out)
        sources = {SQUAD.name: f"JSON, version {data.version}"}
        open_folder(out, subjects, {SQUAD.name: data}, protocol, sources=sources, assumptions=ASSUMPTIONS)
        refuse_edited_cells(out, data)
        cells = [Cell(subject, SQUAD, seed) for subject in subjects for seed in request.seeds]
        unfinished = [cell for cell in cells if not is_finished(cell, out, data, protocol)]
        known = {} if request.retry_failed else {cell: known_failure(cell, out, data, protocol) for cell in unfinished}
        failed = {cell: error for cell, error in known.items() if error}
        missing = [cell for cell in unfinished if cell not in failed]
        table = write_squad_table(out, read_cells(out), read_grid(out))
        board = Board(out)
        board.begin("squad", LOCAL.name, "cells", {board_key(cell): _entry(cell, out) for cell in cells})
        for cell, reason in failed.items():
            board.fail(board_key(cell), Failure(reason))
        place = Place(board, device, gpus=gpus_of(device, request.device))
        queue: Queue[Cell, Answered] = Queue(
            _jobs(missing, data, protocol), start, (data, protocol), Watch(progress, stop), place
        )
        largest = max((cell.subject.size for cell in missing), default=0)
        for cell, result in queue.results(request.workers or default_workers(place.gpus, largest)):
            _write_cell(cell, out, data, protocol, result)
            forget_failure(cell, out)
            table = write_squad_table(out, read_cells(out), read_grid(out))
        for cell, reason in queue.failures:
            keep_failure(cell, out, data, protocol, reason)
        if not (queue.left or queue.failed or failed):
            board.end()
    failures = {**{cell.name: f"{reason} (in an earlier run)" for cell, reason in failed.items()}, **queue.failed}
    return Outcome(queue.trained, len(cells) - len(unfinished), queue.left, failures, table)


def _entry(cell: Cell, out: Path) -> Entry:
    return Entry(cell.name, 1, str(cell.path(out).relative_to(out)))


def _refuse_glue(out: Path) -> None:
    if (out / GRID).is_file() and set(read_grid(out)["tasks"]) != {SQUAD.name}:
        raise with_hint(TrainError(f"{out} is a GLUE folder, expected one of symbert squad"), "give another --out")


def _write_cell(cell: Cell, out: Path, data: SquadData, protocol: SquadProtocol, result: Answered) -> None:
    found = {
        "version": data.version,
        "scores": scores_of(data.validation, result.predictions, data.version),
        "predictions": result.predictions,
        "training_loss": result.training_loss,
        "predictions_sha256": result.sha256(),
    }
    write_json(cell.path(out), cell_record(cell, data, protocol, found, result), name="cell")


@dataclass(frozen=True)
class _Order:
    place: int
    subject: Subject
    seed: int

    @property
    def paths(self) -> list[Path]:
        return [self.subject.folder]


def _jobs(cells: Sequence[Cell], data: SquadData, protocol: SquadProtocol) -> Iterator[Job[Cell]]:
    steps = steps_of(len(data.train), protocol)
    for cell in cells:

        def order(place: int, cell: Cell = cell) -> _Order:
            return _Order(place, cell.subject, cell.seed)

        yield Job(cell, cell.name, board_key(cell), steps, float(steps), order)


def start(setting: tuple[tuple[SquadData, SquadProtocol], str]) -> Work[_Order, Answered]:
    """What a worker does with every cell: fine-tune, and tell after each step; it tokenizes once per checkpoint."""
    (data, protocol), device = setting

    @functools.lru_cache(maxsize=1)
    def windows(subject: Subject) -> tuple[Windows, Windows]:
        return cut_into_windows(data.train, subject, protocol), cut_into_windows(data.validation, subject, protocol)

    def work(order: _Order, tell: Tell) -> Answered:
        train, validation = windows(order.subject)
        settings, validated = (protocol, data.version), (data.validation, validation)
        # Windows are counted where they are cut; the queue counts questions, of which there are a few less.
        total = steps_of(len(data.train), protocol)
        share = total / steps_of(len(train.windows), protocol)

        def on_step(step: int) -> None:
            tell({"done": int(step * share), "total": total})

        return finetune_squad(order.subject, train, validated, settings, order.seed, torch.device(device), on_step)

    return work
