"""The numbers that the authors of the pairwise operator published, to stand beside one's own.

Courtois et al. (2024, arXiv 2406.06366) released their logs as three CSV files, under the MIT licence:

    validation_loss.csv        size, operator, step, loss                    Figure 2
    glue_per_seed.csv          size, operator, seed, task, metric, value     Table 3
    glue_per_checkpoint.csv    size, operator, step, task, metric, value     Figure 3

symbert ships none of them; a folder that holds one or more is given with `--published`.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from durable.checked import damaged
from durable.errors import with_hint
from report.errors import ReportError
from train.glue.score import ModelScores, Scores, model_scores
from train.glue.tasks import TASKS

ANEW = "the logs come from the authors' repository, mcrts/ACL2024-SymmetricAttentionBert"
SOURCE = "Courtois et al. (2024)"
LOSSES, GLUE_BY_SEED, GLUE_BY_CHECKPOINT = "validation_loss.csv", "glue_per_seed.csv", "glue_per_checkpoint.csv"

# (layers, heads, hidden size, intermediate size) of Table 2's two sizes.
SIZES = {(4, 8, 512, 2048): "small", (12, 12, 768, 3072): "base"}

# Table 2, which transformers' BertForMaskedLM reproduces to the unit.
PARAMETERS = {
    ("small", "original"): 28_795_194, ("small", "symmetric"): 27_744_570, ("small", "pairwise"): 27_875_642,
    ("base", "original"): 109_514_298, ("base", "symmetric"): 102_427_194, ("base", "pairwise"): 103_017_018,
}  # fmt: skip

# The steps whose losses the tables of Figure 2 list, and the losses whose first steps they list.
FIGURE_2_STEPS = (10_000, 14_000, 20_000, 30_000, 50_000, 100_000, 150_000, 200_000)
FIGURE_2_LEVELS = (5.5, 3.0, 2.5, 2.0, 1.8)

Model = tuple[str, str]
"""Size and operator."""


@dataclass(frozen=True)
class Published:
    """What the CSV files hold; a mapping is empty where its file is absent."""

    losses: Mapping[Model, list[tuple[int, float]]] = field(default_factory=dict)
    """(step, validation loss), ascending."""
    glue: Mapping[Model, ModelScores] = field(default_factory=dict)
    checkpoints: Mapping[Model, Mapping[int, ModelScores]] = field(default_factory=dict)
    """By step, one seed each."""

    @property
    def sizes(self) -> list[str]:
        """Sizes with a loss curve, the smaller first."""
        return sorted({size for size, _ in self.losses}, reverse=True)


def read_published(folder: Path) -> Published:
    """Read the folder of published CSV files. Raises ReportError if it holds none of them, or a damaged one."""
    if not folder.is_dir():
        raise ReportError(f"{folder} does not exist, expected the folder of the published CSV files")
    if not any((folder / name).is_file() for name in (LOSSES, GLUE_BY_SEED, GLUE_BY_CHECKPOINT)):
        raise with_hint(
            ReportError(f"{folder} holds no {LOSSES}, {GLUE_BY_SEED} or {GLUE_BY_CHECKPOINT}"),
            ANEW,
        )
    return Published(
        _losses(folder / LOSSES), _by_seed(folder / GLUE_BY_SEED), _by_checkpoint(folder / GLUE_BY_CHECKPOINT)
    )


def _losses(path: Path) -> dict[Model, list[tuple[int, float]]]:
    curves: dict[Model, list[tuple[int, float]]] = {}
    for model, row in _rows(path, ("step",), ("loss",)):
        curves.setdefault(model, []).append((int(row["step"]), float(row["loss"])))
    return {model: sorted(points) for model, points in curves.items()}


def _by_seed(path: Path) -> dict[Model, ModelScores]:
    return {
        model: model_scores({(task, seed): scores for (seed, task), scores in cells.items()})
        for model, cells in _cells(path, "seed").items()
    }


def _by_checkpoint(path: Path) -> dict[Model, dict[int, ModelScores]]:
    checkpoints: dict[Model, dict[int, ModelScores]] = {}
    for model, cells in _cells(path, "step").items():
        for step in sorted({step for step, _ in cells}):
            one = {(task, 1): scores for (found, task), scores in cells.items() if found == step}
            checkpoints.setdefault(model, {})[step] = model_scores(one)
    return checkpoints


def _cells(path: Path, index: str) -> dict[Model, dict[tuple[int, str], Scores]]:
    cells: dict[Model, dict[tuple[int, str], dict[str, float]]] = {}
    for model, row in _rows(path, (index,), ("value",), ("task", "metric")):
        if (task := row["task"]) not in TASKS:
            raise ReportError(f"{path}: `{task}` is not a task of GLUE")
        cells.setdefault(model, {}).setdefault((int(row[index]), task), {})[row["metric"]] = float(row["value"])
    for model, found in cells.items():
        for (number, task), scores in found.items():
            if missing := [metric for metric in TASKS[task].metrics if metric not in scores]:
                what = f"`{missing[0]}` of {' '.join(model)}, {task}, {index} {number}"
                raise damaged(path, f"{what}, is missing", ReportError, ANEW)
    return {model: {**found} for model, found in cells.items()}


def _rows(
    path: Path, whole: Sequence[str], real: Sequence[str], words: Sequence[str] = ()
) -> Iterator[tuple[Model, dict[str, str]]]:
    """Each row as its model and its texts, those of `whole` and `real` numbers; none where the file is absent."""
    if not path.is_file():
        return
    columns = (*whole, *words, *real)
    found = False
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("size", "operator", *columns) if name not in (reader.fieldnames or ())]
            if missing:
                raise ReportError(f"{path} has no column `{missing[0]}`, expected size, operator, {', '.join(columns)}")
            for row in reader:
                if problem := _problem(row, whole, real, words):
                    raise damaged(f"{path}, line {reader.line_num},", problem, ReportError, ANEW)
                found = True
                yield (row["size"], row["operator"]), row
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, str(error), ReportError, ANEW) from None
    if not found:
        raise damaged(path, "it holds no row below its header", ReportError, ANEW)


def _problem(row: Mapping[str, str], whole: Sequence[str], real: Sequence[str], words: Sequence[str]) -> str | None:
    fits = {
        "a name as size, operator and the like": all(row[name] for name in ("size", "operator", *words)),
        f"a whole number as {', '.join(whole)}": all(_is_number(row[name], int) for name in whole),
        f"a finite number as {', '.join(real)}": all(_is_number(row[name], float) for name in real),
    }
    return next((f"{row}, expected {wanted}" for wanted, is_there in fits.items() if not is_there), None)


def _is_number(text: str | None, kind: type[int] | type[float]) -> bool:
    try:
        return text is not None and math.isfinite(kind(text))
    except (ValueError, OverflowError):
        return False
