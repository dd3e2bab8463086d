"""The grid of cells, checkpoints × tasks × seeds: each is run once, kept as one file, and never run again.

    OUT/grid.json                                protocol, assumptions, what the tasks' data and checkpoints are
    OUT/cells/<12 hex>/<task>-<seed>.json        one cell: identity, scores, predictions; timing under its own key
    OUT/table.{md,tex,csv,json}                  every finished cell of the folder

The folder of a cell is named by the sha256 of the checkpoint's weights.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from durable.errors import with_hint
from durable.files import sweep_partials, write_json
from durable.locks import folder_lock
from durable.progress import ProgressCallback, silent
from durable.settings import difference
from durable.signals import StopRequest
from train.errors import TrainError
from train.glue.checkpoint import Subject, find_subject, load_config, load_tokenizer
from train.glue.encode import EncodedTask, encode_task
from train.glue.finetune import Finetuned, StoppedError, finetune, steps_of
from train.glue.protocol import ASSUMPTIONS, Protocol
from train.glue.read import HUB_DATASET, TaskData, read_task
from train.glue.score import Values, predictions_of, scores_of
from train.glue.table import Table, write_table
from train.glue.tasks import Task

FORMAT_VERSION = 1
GRID = "grid.json"


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
    device: str = "auto"


@dataclass(frozen=True)
class Cell:
    """One fine-tuning: a checkpoint, a task, a seed."""

    subject: Subject
    task: Task
    seed: int

    def path(self, out: Path) -> Path:
        return out / "cells" / self.subject.short / f"{self.task.name}-{self.seed}.json"


@dataclass(frozen=True)
class Outcome:
    """What a run of the grid did."""

    trained: int
    found: int
    """Cells that an earlier run had finished."""
    left: int
    """Cells that were asked for and not reached."""
    table: Table


def run_grid(request: Request, *, progress: ProgressCallback = silent, stop: StopRequest | None = None) -> Outcome:
    """Run the cells that are not there yet, then write the table of the whole folder.

    `progress` counts optimizer steps. Once `stop` is requested the cell at hand is given up and the rest is left.
    Raises TrainError for bad input, and where the folder holds cells of another protocol or other data.
    """
    device = chosen_device(request.device)
    subjects = _distinct(find_subject(path) for path in request.checkpoints)
    _refuse_foreign_folder(request.out)
    data = {task.name: read_task(task, request.data_dir) for task in request.tasks}
    for subject in subjects:
        load_tokenizer(subject)
    with folder_lock(request.out):
        sweep_partials(request.out)
        _open_folder(request, subjects, data)
        cells = [Cell(subject, task, seed) for task in request.tasks for subject in subjects for seed in request.seeds]
        missing = [cell for cell in cells if not _is_finished(cell, request, data)]
        # The longest first, so that no long one is left to the end alone.
        missing.sort(key=lambda cell: -len(data[cell.task.name].train))
        trained = _run(missing, request, data, device, _Watch(progress, stop, missing, data, request.protocol))
        table = write_table(request.out, read_cells(request.out), read_grid(request.out))
    return Outcome(trained, len(cells) - len(missing), len(missing) - trained, table)


def chosen_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises TrainError for CUDA where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise TrainError(f"device `{name}` is not known, expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("torch finds no CUDA device")
    return torch.device(name)


def read_grid(out: Path) -> dict[str, Any]:
    """The record of a GLUE folder. Raises TrainError if `out` is none."""
    return _read_json(out / GRID, f"{out} is not a GLUE folder: {GRID} is missing")


def read_cells(out: Path) -> list[dict[str, Any]]:
    """Every finished cell of a GLUE folder, in a fixed order."""
    return [_read_json(path, f"{path} is missing") for path in sorted((out / "cells").glob("*/*.json"))]


def _read_json(path: Path, if_missing: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TrainError(if_missing) from None
    except ValueError as error:
        raise with_hint(TrainError(f"{path} is damaged: {error}"), "delete it and run the command again") from None
    return content


def _distinct(subjects: Iterable[Subject]) -> list[Subject]:
    distinct: dict[str, Subject] = {}
    for subject in subjects:
        distinct.setdefault(subject.weights, subject)
    return list(distinct.values())


def _refuse_foreign_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out} is a file, expected a folder to write to")
    if out.is_dir() and not (out / GRID).is_file():
        other = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if other:
            raise with_hint(
                TrainError(f"{out} holds other things ({other[0]}) and no {GRID}"), "give --out a new folder"
            )


def _open_folder(request: Request, subjects: Sequence[Subject], data: Mapping[str, TaskData]) -> None:
    """Write grid.json, or add to it; refuse where what is there was made otherwise."""
    new: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "protocol": request.protocol.model_dump(),
        "tasks": {name: {"data": task.sha256} for name, task in data.items()},
        "checkpoints": {subject.weights: {"model": subject.model} for subject in subjects},
    }
    record = read_grid(request.out) if (request.out / GRID).is_file() else new
    if changes := _difference_to(record, new):
        raise with_hint(
            TrainError(f"{request.out} was made otherwise: {'; '.join(changes)}"),
            "give another --out, or the settings of the first run",
        )
    tasks, checkpoints = dict(record["tasks"]), dict(record["checkpoints"])
    for name, task in data.items():
        source = HUB_DATASET if request.data_dir is None else "TSV"
        tasks.setdefault(name, {})
        tasks[name] = {
            "data": task.sha256,
            "rows": task.rows(),
            "source": tasks[name].get("source", source),
        }
    for subject in subjects:
        checkpoints[subject.weights] = _facts(subject, request.protocol)
    write_json(
        request.out / GRID,
        {
            "format_version": FORMAT_VERSION,
            "protocol": request.protocol.model_dump(),
            "assumptions": ASSUMPTIONS,
            "tasks": tasks,
            "checkpoints": checkpoints,
        },
        name="grid",
    )


def _difference_to(record: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What both records name and do not agree on."""
    changes = [
        *difference({"format_version": record["format_version"]}, {"format_version": new["format_version"]}),
        *difference(record["protocol"], new["protocol"]),
    ]
    for kind, identity in (("tasks", "data"), ("checkpoints", "model")):
        for name in record[kind].keys() & new[kind].keys():
            old, now = record[kind][name], new[kind][name]
            changes += difference({name[:12]: {identity: old[identity]}}, {name[:12]: {identity: now[identity]}})
    return changes


def _facts(subject: Subject, protocol: Protocol) -> dict[str, Any]:
    config = load_config(subject)
    facts = {
        "name": subject.name,
        "model": subject.model,
        "model_type": config.model_type,
        "operator": getattr(config, "attention_operator", None),
        "max_length": _max_length(config, protocol),
    }
    return {key: value for key, value in facts.items() if value is not None}


def _max_length(config: Any, protocol: Protocol) -> int:
    return min(protocol.max_length, getattr(config, "max_position_embeddings", protocol.max_length))


def _identity(cell: Cell, request: Request, data: Mapping[str, TaskData]) -> dict[str, Any]:
    return {
        "weights": cell.subject.weights,
        "model": cell.subject.model,
        "task": cell.task.name,
        "data": data[cell.task.name].sha256,
        "protocol": request.protocol.model_dump(),
        "seed": cell.seed,
    }


def _is_finished(cell: Cell, request: Request, data: Mapping[str, TaskData]) -> bool:
    path = cell.path(request.out)
    if not path.is_file():
        return False
    changes = difference(_read_json(path, "")["identity"], _identity(cell, request, data))
    if changes:
        raise with_hint(TrainError(f"{path} is another cell: {'; '.join(changes)}"), "give another --out")
    return True


class _Watch:
    """Counts steps over all cells, tells the progress, and asks whether to stop."""

    def __init__(
        self,
        progress: ProgressCallback,
        stop: StopRequest | None,
        cells: Sequence[Cell],
        data: Mapping[str, TaskData],
        protocol: Protocol,
    ) -> None:
        self._progress, self._stop = progress, stop
        self._steps = {cell: steps_of(len(data[cell.task.name].train), protocol) for cell in cells}
        self._done = 0

    @property
    def stopped(self) -> bool:
        return self._stop is not None and self._stop.requested

    def cell(self, cell: Cell) -> Callable[[int], None]:
        before, total = self._done, sum(self._steps.values())
        self._done += self._steps[cell]
        name = f"{cell.subject.name} {cell.task.name}-{cell.seed}"

        def on_step(step: int) -> None:
            if self.stopped:
                raise StoppedError
            self._progress(before + step, total, {"cell": name})

        return on_step


def _run(
    cells: Sequence[Cell], request: Request, data: Mapping[str, TaskData], device: torch.device, watch: _Watch
) -> int:
    encoded: dict[tuple[str, str], EncodedTask] = {}
    for trained, cell in enumerate(cells):
        key = (cell.subject.model, cell.task.name)
        if watch.stopped:
            return trained
        if key not in encoded:
            encoded = {key: _encoded(cell.subject, data[cell.task.name], request.protocol)}
        try:
            result = finetune(cell.subject, encoded[key], request.protocol, cell.seed, device, watch.cell(cell))
        except StoppedError:
            return trained
        write_json(
            cell.path(request.out),
            _record(cell, _identity(cell, request, data), data, result, device),
            name="cell",
        )
    return len(cells)


def _encoded(subject: Subject, data: TaskData, protocol: Protocol) -> EncodedTask:
    config = load_config(subject)
    return encode_task(data, load_tokenizer(subject), config, _max_length(config, protocol))


def _record(
    cell: Cell,
    identity: Mapping[str, Any],
    data: Mapping[str, TaskData],
    result: Finetuned,
    device: torch.device,
) -> dict[str, Any]:
    predictions = {split: predictions_of(cell.task, logits) for split, logits in result.logits.items()}
    labels = {split: rows.labels for split, rows in data[cell.task.name].validation.items()}
    return {
        "format_version": FORMAT_VERSION,
        "identity": identity,
        "scores": scores_of(cell.task, predictions, labels),
        "training_loss": result.training_loss,
        "predictions": {split: _as_text(cell.task, values) for split, values in predictions.items()},
        "predictions_sha256": result.sha256(),
        "timing": {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "training_seconds": round(result.training_seconds, 3),
            "evaluation_seconds": round(result.evaluation_seconds, 3),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "torch": torch.__version__,
        },
    }


def _as_text(task: Task, predictions: Values) -> str:
    """Classes as one digit each; numbers in as many digits as float32 needs, divided by blanks."""
    return (" " if task.is_regression else "").join(str(value) for value in predictions)
