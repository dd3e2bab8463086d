"""Cells on disk: what a GLUE folder holds, what makes one cell another, and what is refused.

    OUT/grid.json                            protocol, assumptions, what the tasks' data and the checkpoints are
    OUT/cells/<12 hex>/<task>-<seed>.json    one cell: identity, scores, predictions; timing under its own key
    OUT/labels/<task>.json                   the labels of the validation splits
    OUT/predictions/<12 hex>/<seed>/*.tsv    predictions on the test sets, as the leaderboard takes them
    OUT/encoded/                             the tasks as token ids; may be deleted
    OUT/table.{md,tex,csv,json}              every finished cell of the folder

The folder of a cell is named by the sha256 of the checkpoint's weights.
"""

import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from durable.checked import FROM_A_COPY, Shape, checked, read_json
from durable.errors import with_hint
from durable.files import write_json, write_text
from durable.settings import difference
from train.errors import TrainError
from train.glue import shapes
from train.glue.checkpoint import Subject
from train.glue.finetune import Finetuned, Logits
from train.glue.loading import load_config, usable_length
from train.glue.pretraining import pretraining_of
from train.glue.protocol import ASSUMPTIONS, FineTuning, Protocol
from train.glue.read import TaskData
from train.glue.score import Values, predictions_of, scores_of
from train.glue.tasks import HIGHEST_SCORE, TASKS, Task

FORMAT_VERSION = 1
GRID = "grid.json"
NOISY, TEST = "noisy ", "test "
"""What the names of extra splits begin with, beside the validation splits of the cell itself."""
TIMING, TOGETHER = "timing", "seeds_together"
TF32 = "tf32"
"""A setting that older records lack: a GPU computed without it; to a CPU it is nothing, so the default stands there."""
TEST_DATA = "test_data"
"""Where a cell that has predicted test sets keeps their hash."""


class Data(typing.Protocol):
    """The rows of a task, of whatever kind."""

    @property
    def task(self) -> Task: ...

    @property
    def sha256(self) -> str: ...

    def rows(self) -> dict[str, int]:
        """By split, and what was left out."""


@dataclass(frozen=True)
class Cell:
    """One fine-tuning: a checkpoint, a task, a seed."""

    subject: Subject
    task: Task
    seed: int

    @property
    def name(self) -> str:
        return f"{self.subject.name} {self.task.name}-{self.seed}"

    def path(self, out: Path) -> Path:
        return out / "cells" / self.subject.short / f"{self.task.name}-{self.seed}.json"

    def prediction_path(self, out: Path, name: str) -> Path:
        return out / "predictions" / self.subject.short / str(self.seed) / f"{name}.tsv"

    def identity(self, data: Data, protocol: FineTuning) -> dict[str, Any]:
        """Everything that decides the scores; two cells are the same iff this is."""
        return {
            "weights": self.subject.weights,
            "model": self.subject.model,
            "task": self.task.name,
            "data": data.sha256,
            "protocol": protocol.record(),
            "seed": self.seed,
        }


def read_grid(out: Path) -> dict[str, Any]:
    """The record of a folder of cells. Raises TrainError if `out` is none."""
    path = out / GRID
    if not path.exists():
        error = TrainError(f"{out} is not a GLUE folder: {GRID} is missing")
        rates = sorted(out.glob(f"learning-rate-*/{GRID}"))
        hint = "it holds a search over learning rates: give one of its folders, such as"
        raise with_hint(error, f"{hint} {rates[0].parent}") if rates else error
    record = read_record(path, shapes.Grid, FROM_A_COPY)
    if TF32 not in record["protocol"]:
        cells = (read_cell(path) for path in sorted((out / "cells").glob("*/*.json")))
        record["protocol"][TF32] = all(cell["identity"].get("protocol", {}).get(TF32, True) for cell in cells)
    return record


def read_glue_grid(out: Path) -> dict[str, Any]:
    """The record of a GLUE folder. Raises TrainError if `out` is none, or one of other tasks."""
    grid = read_grid(out)
    if others := sorted(grid["tasks"].keys() - TASKS.keys()):
        error = TrainError(f"{out} is a folder of scores on `{others[0]}`, expected tasks of GLUE")
        raise with_hint(error, "give a folder of symbert glue")
    return grid


def read_cells(out: Path) -> list[dict[str, Any]]:
    """Every finished cell of a GLUE folder, in a fixed order. Raises as cells_by_path does."""
    return [cell for _, cell in cells_by_path(out)]


def cells_by_path(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every finished cell. Raises TrainError, naming the file, for one that is damaged or none of the folder's."""
    grid = read_grid(out)
    for path in sorted((out / "cells").glob("*/*.json")):
        cell = read_cell(path)
        shapes.refuse_strange_cell(cell, path, grid, GRID)
        yield path, cell


def read_cell(path: Path) -> dict[str, Any]:
    """One finished cell. Raises TrainError, naming the file, if it is damaged."""
    cell = read_record(path, shapes.Cell, shapes.AGAIN)
    if isinstance(protocol := cell["identity"].get("protocol"), dict):
        protocol.setdefault(TF32, cell.get(TIMING, {}).get("device", "cpu") == "cpu")
    return cell


def read_record(path: Path, shape: type[Shape], hint: str) -> dict[str, Any]:
    """A file of the folder, whole. Raises TrainError, with this hint, if it is not of that shape."""
    document: dict[str, Any] = read_json(path, TrainError, hint)
    checked(shape, document, path, TrainError, hint)
    return document


def is_finished(cell: Cell, out: Path, data: Data, protocol: FineTuning) -> bool:
    """Whether the cell is there. Raises TrainError if another one is there under its name."""
    path = cell.path(out)
    if not path.is_file():
        return False
    changes = difference(read_cell(path)["identity"], cell.identity(data, protocol))
    if changes:
        raise with_hint(TrainError(f"{path} is another cell: {'; '.join(changes)}"), "give another --out")
    return True


def has_predicted(cell: Cell, out: Path, tests: TaskData) -> bool:
    """Whether a finished cell has predicted these very test sets."""
    there = all(cell.prediction_path(out, name).is_file() for name in cell.task.test)
    return there and read_cell(cell.path(out)).get(TEST_DATA) == tests.sha256


def write_cell(
    cell: Cell, out: Path, rows: tuple[TaskData, TaskData | None], protocol: Protocol, result: Finetuned
) -> None:
    """Score a fine-tuned model and keep its cell, whole or not at all; `rows` are the data and the test sets."""
    data, tests = rows
    found = {
        **_scored(data, result.logits),
        "training_loss": result.training_loss,
        "predictions_sha256": result.sha256(),
    }
    record = cell_record(cell, data, protocol, found, result)
    record[TIMING][TOGETHER] = list(result.seeds_together)
    if protocol.noise != "none":
        noisy = {split: result.extra[f"{NOISY}{split}"] for split in data.validation}
        record["noise"] = _scored(data, noisy)
    if tests is not None:
        record[TEST_DATA] = tests.sha256
        for name in cell.task.test:
            text = leaderboard_text(cell.task, predictions_of(cell.task, result.extra[f"{TEST}{name}"]))
            write_text(cell.prediction_path(out, name), text, name="predictions")
    write_json(cell.path(out), record, name="cell")


class Timed(typing.Protocol):
    """How long a cell took, and where."""

    @property
    def training_seconds(self) -> float: ...

    @property
    def evaluation_seconds(self) -> float: ...

    @property
    def device(self) -> str: ...


def cell_record(cell: Cell, data: Data, protocol: FineTuning, found: Mapping[str, Any], timed: Timed) -> dict[str, Any]:
    """A cell's file: what it is, what was found, and how long that took."""
    return {
        "format_version": FORMAT_VERSION,
        "identity": cell.identity(data, protocol),
        **found,
        TIMING: {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "training_seconds": round(timed.training_seconds, 3),
            "evaluation_seconds": round(timed.evaluation_seconds, 3),
            "device": timed.device,
            "torch": torch.__version__,
        },
    }


def _scored(data: TaskData, logits: Mapping[str, Logits]) -> dict[str, Any]:
    predictions = {split: predictions_of(data.task, values) for split, values in logits.items()}
    labels = {split: rows.labels for split, rows in data.validation.items()}
    return {
        "scores": scores_of(data.task, predictions, labels),
        "predictions": {split: values_as_text(data.task, values) for split, values in predictions.items()},
    }


def leaderboard_text(task: Task, predictions: Values) -> str:
    """A file as GLUE's leaderboard takes it: row number and prediction, with the labels of the task's own TSV files.

    A predicted score of STS-B that is out of its range stands there as the nearest one within.
    """
    labels = list(task.classes)
    if task.is_regression:
        predictions = predictions.clip(0, HIGHEST_SCORE)
    shown = (f"{value:.3f}" if task.is_regression else labels[int(value)] for value in predictions)
    return "index\tprediction\n" + "".join(f"{number}\t{label}\n" for number, label in enumerate(shown))


def values_as_text(task: Task, values: Values) -> str:
    """Classes as one digit each; of more than ten, and numbers, divided by blanks, in the digits that float32 needs."""
    return ("" if task.one_digit else " ").join(str(value) for value in values)


def values_from_text(task: Task, text: str) -> Values:
    """What values_as_text made text of."""
    if task.is_regression:
        return np.array(text.split(), np.float32)
    if not task.one_digit:
        return np.array(text.split(), np.int64)
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64) - ord("0")


def refuse_foreign_folder(out: Path) -> None:
    """Raises TrainError if `out` is a file, or a folder of other things."""
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out} is a file, expected a folder to write to")
    if out.is_dir() and not (out / GRID).is_file():
        other = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if other:
            raise with_hint(
                TrainError(f"{out} holds other things ({other[0]}) and no {GRID}"), "give --out a new folder"
            )


def open_folder(
    out: Path,
    subjects: Sequence[Subject],
    data: Mapping[str, Data],
    protocol: FineTuning,
    *,
    sources: Mapping[str, str],
    assumptions: Mapping[str, str] = ASSUMPTIONS,
) -> None:
    """Write grid.json, or add to it; `sources` says by task where new ones are from.

    Raises TrainError, with the difference, where what is there was made otherwise.
    """
    new: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "protocol": protocol.record(),
        "tasks": {name: {"data": task.sha256} | _own_settings(task.task, protocol) for name, task in data.items()},
        "checkpoints": {subject.weights: {"model": subject.model} for subject in subjects},
    }
    record = read_grid(out) if (out / GRID).is_file() else new
    if changes := _difference_to(record, new):
        raise with_hint(
            TrainError(f"{out} was made otherwise: {'; '.join(changes)}"),
            "give another --out, or the settings of the first run",
        )
    tasks, checkpoints = dict(record["tasks"]), dict(record["checkpoints"])
    for name, task in data.items():
        tasks[name] = {"source": sources[name]} | tasks.get(name, {}) | new["tasks"][name] | {"rows": task.rows()}
    for subject in subjects:
        checkpoints[subject.weights] = _facts(subject, protocol)
    record = {**new, "assumptions": dict(assumptions), "tasks": tasks, "checkpoints": checkpoints}
    write_json(out / GRID, record, name="grid")


def _difference_to(record: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What both records name and do not agree on."""
    changes = [
        *difference({"format_version": record.get("format_version")}, {"format_version": new["format_version"]}),
        *difference(record["protocol"], new["protocol"]),
    ]
    for kind in ("tasks", "checkpoints"):
        for name in sorted(record[kind].keys() & new[kind].keys()):
            old, now = record[kind][name], new[kind][name]
            changes += difference({name[:12]: {key: old.get(key) for key in now}}, {name[:12]: now})
    return changes


def _own_settings(task: Task, protocol: FineTuning) -> dict[str, Any]:
    """What a task of a paper of its own is trained with otherwise than the others, or might be."""
    if not isinstance(protocol, Protocol) or not task.settings:
        return {}
    settings = protocol.of_task(task).record()
    return {"settings": {key: settings[key] for key in task.settings}}


def _facts(subject: Subject, protocol: FineTuning) -> dict[str, Any]:
    config = load_config(subject)
    run = None if subject.step is None else subject.folder.resolve().parent.parent
    facts = {
        "name": subject.name,
        "run": subject.run,
        "run_folder": None if run is None else str(run),
        "pretraining": None if run is None else pretraining_of(run),
        "step": subject.step,
        "model": subject.model,
        "model_type": config.model_type,
        "operator": getattr(config, "attention_operator", None),
        "attention_logit_gain": getattr(config, "attention_logit_gain", None),
        "max_length": usable_length(config, protocol.max_length),
    }
    return {key: value for key, value in facts.items() if value is not None}
