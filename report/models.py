"""Models with GLUE scores: those of a GLUE folder, and the published ones."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.checked import Shape, checked, damaged
from report.comparison import operator_rank
from report.document import percent
from report.errors import ReportError
from report.published import Published
from train.glue.cells import GRID, read_cell, read_cells, read_grid
from train.glue.rescore import refuse_edited_cells
from train.glue.score import ModelScores
from train.glue.table import table_of
from train.glue.tasks import TASKS

SCORE = percent(2)
CHECKPOINT_NAME = re.compile(r"(?P<run>.+)/step-(?P<step>\d+)$")


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    label: str
    group: str
    """Models of one group compare with its baseline; published sizes are groups of their own."""
    operator: str
    scores: ModelScores
    run: str = ""
    step: int | None = None
    """Where the model is a checkpoint of `run`."""


@dataclass(frozen=True)
class GlueFolder:
    """What a report needs of a GLUE folder."""

    models: list[Model]
    grid: dict[str, Any]


class _Subject(Shape):
    name: str
    operator: str | list[str] | None = None


class _Grid(Shape):
    checkpoints: dict[str, _Subject]
    tasks: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    assumptions: dict[str, Any] | None = None


class _Identity(Shape):
    weights: str
    task: str
    seed: int


class _Scored(Shape):
    scores: dict[str, float]
    predictions: dict[str, str]


class _Cell(_Scored):
    identity: _Identity
    noise: _Scored | None = None


def read_glue(folder: Path) -> GlueFolder:
    """The models of a GLUE folder that have scores. Raises TrainError or ReportError if it is none or is damaged."""
    grid = read_grid(folder)
    weights = checked(_Grid, grid, folder / GRID, ReportError).checkpoints.keys()
    for path in sorted((folder / "cells").glob("*/*.json")):
        _check_cell(path, weights)
    refuse_edited_cells(folder)
    models = []
    for row in table_of(read_cells(folder), grid).rows:
        found = CHECKPOINT_NAME.match(row.name)
        run, step = (found["run"], int(found["step"])) if found else ("", None)
        operator = str((row.facts or {}).get("operator") or "other")
        models.append(Model(row.name, "here", operator, row.scores, run, step))
    return GlueFolder(models, grid)


def _check_cell(path: Path, weights: Collection[str]) -> None:
    again = "delete it and let `symbert glue` train it again"
    cell = checked(_Cell, read_cell(path), path, ReportError, again)
    task = TASKS.get(cell.identity.task)
    if task is None:
        raise damaged(
            path, f"`{cell.identity.task}` is not a task of GLUE", ReportError, f"known are {', '.join(TASKS)}"
        )
    if cell.identity.weights not in weights:
        raise damaged(path, f"{GRID} lists no checkpoint with its weights, {cell.identity.weights[:12]}", ReportError)
    for record in filter(None, (cell, cell.noise)):
        if missing := [metric for metric in task.metrics if metric not in record.scores]:
            raise damaged(path, f"it has no score `{missing[0]}`, which {task.name} has", ReportError, again)


def published_models(published: Published) -> list[Model]:
    """The rows of Table 3, in its order."""
    models = sorted(published.glue, key=lambda model: (model[0] != "small", operator_rank(model[1])))
    return [Model(f"{size}, {operator}", size, operator, published.glue[size, operator]) for size, operator in models]
