"""The labels of the validation splits, kept beside the predictions: with them a cell can be scored again.

OUT/labels/<task>.json    hash of the task's data, and its labels by split
"""

from pathlib import Path

from durable.checked import damaged
from durable.files import write_json
from train.errors import TrainError
from train.glue.cells import read_grid, read_record, values_as_text, values_from_text
from train.glue.read import TaskData
from train.glue.score import Values
from train.glue.shapes import AGAIN, Labels
from train.glue.tasks import HIGHEST_SCORE, Task


def labels_path(out: Path, task: Task) -> Path:
    """Where the labels of a task's validation splits are kept."""
    return out / "labels" / f"{task.name}.json"


def write_labels(out: Path, data: TaskData) -> None:
    """Keep the labels of a task's validation splits, once. Raises TrainError if others are there."""
    labels = {split: values_as_text(data.task, rows.labels) for split, rows in data.validation.items()}
    path = labels_path(out, data.task)
    if not path.exists():
        write_json(path, {"data": data.sha256, "labels": labels}, name="labels")
    elif read_record(path, Labels, AGAIN)["labels"] != labels:
        raise damaged(path, f"its labels are not those of {data.task.name}", TrainError, AGAIN)


def read_labels(out: Path, task: Task) -> dict[str, Values]:
    """The labels of a task's validation splits. Raises TrainError if there are none, or not as many as grid.json says.

    Other labels of the same number are found by write_labels alone, which has the data.
    """
    path = labels_path(out, task)
    if not path.exists():
        raise TrainError(f"{path} is missing, expected the labels of {task.name}: run symbert glue on {out} again")
    texts = read_record(path, Labels, AGAIN)["labels"]
    rows = read_grid(out)["tasks"].get(task.name, {}).get("rows", {})
    try:
        labels = {split: values_from_text(task, texts[split]) for split in task.validation_splits}
    except (KeyError, ValueError) as error:
        raise damaged(path, repr(error), TrainError, AGAIN) from None
    highest = HIGHEST_SCORE if task.is_regression else len(task.classes) - 1
    for split, values in labels.items():
        expected = rows.get(split, len(values))
        if len(values) != expected or not expected:
            reason = f"it holds {len(values):,} labels of the {split} split, expected {expected or 'some'}"
            raise damaged(path, reason, TrainError, AGAIN)
        if not ((values >= 0) & (values <= highest)).all():
            raise damaged(path, f"a label of the {split} split is not from 0 to {highest}", TrainError, AGAIN)
    return labels
