"""Models with GLUE scores: those of a GLUE folder, and the published ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.checked import Shape, checked
from report.comparison import operator_rank
from report.document import percent
from report.errors import ReportError
from report.published import Published
from train.glue.cells import GRID, read_cells, read_glue_grid
from train.glue.rescore import refuse_edited_cells
from train.glue.score import ModelScores
from train.glue.table import table_of

SCORE = percent(2)


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    label: str
    group: str
    """Models of one group compare with its baseline; published sizes are groups of their own, and so is noise."""
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
    operator: str | list[str] | None = None


class _Grid(Shape):
    """What the report alone computes with."""

    checkpoints: dict[str, _Subject]
    assumptions: dict[str, Any] | None = None


def read_glue(folder: Path) -> GlueFolder:
    """The models of a GLUE folder that have scores. Raises TrainError or ReportError if it is none or is damaged."""
    grid = read_glue_grid(folder)
    checked(_Grid, grid, folder / GRID, ReportError)
    refuse_edited_cells(folder)
    models = []
    for row in table_of(read_cells(folder), grid).rows:
        operator = str((row.facts or {}).get("operator") or "other")
        step = None if row.noise else row.step
        models.append(Model(row.name, row.noise or "here", operator, row.scores, row.run, step))
    return GlueFolder(models, grid)


def published_models(published: Published) -> list[Model]:
    """The rows of Table 3, in its order."""
    models = sorted(published.glue, key=lambda model: (model[0] != "small", operator_rank(model[1])))
    return [Model(f"{size}, {operator}", size, operator, published.glue[size, operator]) for size, operator in models]
