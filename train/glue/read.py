"""The rows of a GLUE task, from the official TSV files or from `nyu-mll/glue` on the hub.

The official files are no CSV dialect: a quote is an ordinary character, nothing is escaped, and a row ends at the
end of its line. Text is kept as it stands, trailing blanks included.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from durable.errors import with_hint
from train.errors import TrainError
from train.glue.files import HUB_DATASET, find_test_files, layout_of, task_folder
from train.glue.tasks import HIGHEST_SCORE, Hub, Task

ID_COLUMNS = ("#1 ID", "#2 ID")
PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")

Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """The rows of one split, by column."""

    text: tuple[list[str], ...]
    """One list per sentence of the task: one or two."""
    labels: Labels
    """Class numbers (int64), or scores (float32) where the task is a regression."""
    left_out: int = 0
    """Rows of the file that had missing fields."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TaskData:
    """All splits of a task that fine-tuning needs: `train`, then those for validation."""

    task: Task
    splits: Mapping[str, Split]

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def validation(self) -> dict[str, Split]:
        return {name: self.splits[name] for name in self.task.validation_splits}

    @functools.cached_property
    def sha256(self) -> str:
        """A hash of text and labels in order: the same from TSV files of any layout and from the hub."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name} {len(split)}\n".encode())
            for row in zip(*split.text, split.labels.tolist(), strict=True):
                digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def rows(self) -> dict[str, int]:
        """Rows of each split, and rows left out where there were any."""
        counts = {name: len(split) for name, split in self.splits.items()}
        left_out = {f"{name}_left_out": split.left_out for name, split in self.splits.items() if split.left_out}
        return counts | left_out


def source_of(task: Task, data_dir: Path | None) -> str:
    """Where read_task finds a task: `TSV`, or a dataset of the hub."""
    return "TSV" if data_dir is not None else _hub_of(task).dataset


def _hub_of(task: Task) -> Hub:
    return task.hub or Hub(HUB_DATASET, task.name)


def read_task(task: Task, data_dir: Path | None) -> TaskData:
    """Read a task from `data_dir/<folder>`, or from the hub where that is None; see source_of.

    Raises TrainError, naming file and line, for what is missing or not in the official form.
    """
    return _from_hub(task) if data_dir is None else _from_folder(task, data_dir)


def read_test(task: Task, data_dir: Path | None) -> TaskData:
    """The test sets of a task, by their names on the leaderboard; their labels are secret and stand as 0.

    Raises TrainError, naming file and line, for what is missing or not in the official form.
    """
    if data_dir is None:
        splits = _hub_test(task)
    else:
        splits = {name: _read_test(task, path) for name, path in find_test_files(task, data_dir).items()}
    return TaskData(task, splits)


def _read_test(task: Task, path: Path) -> Split:
    with_header = replace(task, columns=(), skips_short_rows=False)
    rows = [row for _, row in _rows(with_header, path, task.text) if row is not None]
    if not rows:
        raise TrainError(f"{path} holds no row of the test set, expected at least one")
    return Split(tuple([row[column] for row in rows] for column in task.text), _as_labels(task, [0] * len(rows)))


def _hub_test(task: Task) -> dict[str, Split]:
    loaded, splits = _load_hub(task), {}
    for name, file in task.test.items():
        table = loaded[file.removesuffix(".tsv")]
        columns = tuple(list(table[column]) for column in task.hub_text or task.text)
        splits[name] = Split(columns, _as_labels(task, [0] * len(table)))
    return splits


def _from_folder(task: Task, data_dir: Path) -> TaskData:
    folder = task_folder(task, data_dir)
    layout = layout_of(task, folder)
    splits = {}
    for name, file in layout.files.items():
        path = folder / file
        held_out = _pairs(folder / layout.held_out) if layout.held_out else None
        keep = None if held_out is None else (name != "train", held_out)
        splits[name] = _read_split(task, path, keep)
        if not len(splits[name]):
            raise TrainError(f"{path} holds no row of the {name} split, expected at least one")
    return TaskData(task, splits)


Pair = tuple[str, str]


def _pairs(path: Path) -> set[Pair]:
    pairs = set()
    for number, line in _lines(path):
        fields = line.split("\t")
        if len(fields) != 2:
            raise TrainError(f"{path}, line {number}: {len(fields)} fields, expected the IDs of two sentences")
        pairs.add((fields[0], fields[1]))
    return pairs


def _read_split(task: Task, path: Path, keep: tuple[bool, set[Pair]] | None) -> Split:
    text: tuple[list[str], ...] = tuple([] for _ in task.text)
    labels: list[float] = []
    left_out = 0
    for number, row in _rows(task, path, [*task.text, task.label]):
        if row is None:
            left_out += 1
            continue
        if keep and ((row[ID_COLUMNS[0]], row[ID_COLUMNS[1]]) in keep[1]) is not keep[0]:
            continue
        for column, values in zip(task.text, text, strict=True):
            values.append(row[column])
        labels.append(_label(task, row[task.label], f"{path}, line {number}"))
    return Split(text, _as_labels(task, labels), left_out)


def _rows(task: Task, path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Every row with the number of its line; None for one whose missing fields the task forgives."""
    lines = _lines(path)
    columns = list(task.columns)
    if not columns:
        columns = next(lines, (1, ""))[1].split("\t")
        if missing := [column for column in needed if column not in columns]:
            raise TrainError(
                f"{path}, line 1: column `{missing[0]}` is missing, expected a header with "
                f"{', '.join(f'`{column}`' for column in needed)}"
            )
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) == len(columns):
            yield number, dict(zip(columns, fields, strict=True))
        elif len(fields) < len(columns) and task.skips_short_rows:
            yield number, None
        else:
            raise TrainError(
                f"{path}, line {number}: {len(fields)} fields, expected {len(columns)} ({', '.join(columns)})"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # A byte order mark opens MRPC's files; utf-8-sig takes it away where there is one.
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise TrainError(f"{path} is not UTF-8 text: {error}") from None


def _label(task: Task, value: str, where: str) -> float:
    if task.is_regression:
        if PLAIN_NUMBER.fullmatch(value) and float(value) <= HIGHEST_SCORE:
            return float(value)
        raise TrainError(f"{where}: `{task.label}` is {value!r}, expected a number from 0 to {HIGHEST_SCORE}")
    if value in task.classes:
        return list(task.classes).index(value)
    raise TrainError(f"{where}: `{task.label}` is {value!r}, expected one of {', '.join(task.classes)}")


def _as_labels(task: Task, values: Sequence[float]) -> Labels:
    return np.array(values, np.float32) if task.is_regression else np.array(values, np.int64)


def _from_hub(task: Task) -> TaskData:
    return from_datasets(task, _load_hub(task))


def _load_hub(task: Task) -> Mapping[str, Any]:
    hub = _hub_of(task)
    try:
        import datasets
    except ImportError:
        raise with_hint(
            TrainError(f"reading {hub.dataset} from the hub needs the package `datasets`, which is not installed"),
            "pip install datasets, or give the official TSV files by --data-dir",
        ) from None
    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(hub.dataset, hub.configuration, revision=hub.revision)
    except (OSError, ValueError) as error:
        raise with_hint(
            TrainError(f"{hub.dataset} could not be read from the hub: {str(error).splitlines()[0]}"),
            "give a folder with the official TSV files by --data-dir",
        ) from error
    return loaded


def from_datasets(task: Task, loaded: Mapping[str, Any]) -> TaskData:
    """A task from the splits of what `datasets.load_dataset` gives for it.

    Raises TrainError if columns or labels are not those of the hub's dataset.
    """
    columns, hub = task.hub_text or task.text, _hub_of(task)
    splits = {}
    for name in ("train", *task.validation_splits):
        where = f"{hub.dataset}, {task.name}"
        if name not in loaded or not len(loaded[name]):
            raise TrainError(f"{where}: the split {name} is missing or empty")
        table = loaded[name]
        if missing := [column for column in (*columns, hub.label) if column not in table.column_names]:
            raise TrainError(f"{where}, {name}: column `{missing[0]}` is missing")
        names = getattr(table.features[hub.label], "names", [])
        if list(names) != list(task.classes.values()):
            raise TrainError(f"{where}: labels are {list(names)}, expected {list(task.classes.values())}")
        labels = _as_labels(task, list(table[hub.label]))
        if not task.is_regression and (labels.min() < 0 or labels.max() >= len(names)):
            raise TrainError(f"{where}, {name}: a row has no label")
        if task.is_regression and not ((labels >= 0) & (labels <= HIGHEST_SCORE)).all():
            raise TrainError(f"{where}, {name}: a row's label is no number from 0 to {HIGHEST_SCORE}")
        splits[name] = Split(tuple(list(table[column]) for column in columns), labels)
    return TaskData(task, splits)
