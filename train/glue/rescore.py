"""Finished cells against themselves: the scores of a cell are those of its predictions on the folder's labels."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable.errors import with_hint
from train.errors import TrainError
from train.glue.cells import cells_by_path, values_from_text
from train.glue.labels import labels_path, read_labels
from train.glue.score import Values, scores_of
from train.glue.tasks import TASKS, Task

TOLERANCE = 1e-6
"""Between releases of scikit-learn and scipy a correlation may differ in its last digits."""


def refuse_edited_cells(out: Path) -> None:
    """Score the predictions of every finished cell again. Raises TrainError, naming the file, at another result.

    Passed over are SQuAD's, which train.squad.rescore looks at, and cells of a task whose labels are not in the folder:
    the next `symbert glue` on it puts them there.
    """
    labels: dict[str, Mapping[str, Values]] = {}
    for path, cell in cells_by_path(out):
        task = TASKS.get(cell["identity"]["task"])
        if task is None or not labels_path(out, task).is_file():
            continue
        if task.name not in labels:
            labels[task.name] = read_labels(out, task)
        for record in (cell, cell["noise"]) if "noise" in cell else (cell,):
            if problem := _problem(task, record, labels[task.name]):
                raise with_hint(
                    TrainError(f"{path} is damaged: {problem}"), "delete it and let `symbert glue` train it again"
                )


def _problem(task: Task, record: Mapping[str, Any], labels: Mapping[str, Values]) -> str | None:
    try:
        predictions = {split: values_from_text(task, record["predictions"][split]) for split in labels}
        if any(len(predictions[split]) != len(values) for split, values in labels.items()):
            return "it has not as many predictions as there are labels"
        found = scores_of(task, predictions, labels)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return f"its predictions cannot be scored: {error!r}"
    return other_score(record, found)


def other_score(record: Mapping[str, Any], found: Mapping[str, float]) -> str | None:
    """What the record says otherwise than its predictions score, None if it agrees."""
    for name, value in found.items():
        recorded = record["scores"].get(name)
        if not isinstance(recorded, int | float) or not math.isclose(recorded, value, abs_tol=TOLERANCE):
            return f"its {name} is {recorded}, its predictions score {value:.6g}"
    return None
