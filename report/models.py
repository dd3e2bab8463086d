"""Models with GLUE scores: those of a GLUE folder, and the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from durable.checked import Shape, checked
from report.comparison import BASELINE, operator_rank
from report.document import percent
from report.errors import ReportError
from report.published import Published
from report.runs import Run
from train.glue.cells import GRID, read_cells, read_glue_grid
from train.glue.rescore import refuse_edited_cells
from train.glue.score import ModelScores
from train.glue.table import table_of

SCORE = percent(2)
CLEAN = "here"
"""The group of one's own models on sentences without noise."""


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
    gain: float | None = 1.0
    """Of the attention's logits; None where it is not known."""
    seed: int | None = None
    """Of pre-training, where it is known."""
    settings: str = ""
    """Equal for checkpoints whose pre-training differs in its seed alone; empty where that is not known."""
    rest: str = ""
    """Equal for those that a study of attention operators compares; empty likewise."""

    @property
    def is_plain(self) -> bool:
        """Whether it is the original operator without any change: what others compare with."""
        return self.operator == BASELINE and self.gain == 1.0


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


def read_glue(folder: Path, runs: Sequence[Run] = ()) -> GlueFolder:
    """The models of a GLUE folder that have scores.

    `runs` tell of the pre-training where an older symbert has not recorded it. Raises TrainError or ReportError if the
    folder is none or is damaged.
    """
    grid = read_glue_grid(folder)
    checked(_Grid, grid, folder / GRID, ReportError)
    refuse_edited_cells(folder)
    found: list[tuple[Model, str]] = []
    for row in table_of(read_cells(folder), grid).rows:
        facts = row.facts or {}
        operator = str(facts.get("operator") or "other")
        model = Model(row.name, row.noise or CLEAN, operator, row.scores, row.run, row.step)
        found.append((_with_pretraining(model, facts, _run_of(facts, runs)), facts["model"]))
    # Of an older symbert: where all originals are of one configuration there is no control among them.
    unknown = {config for model, config in found if model.operator == BASELINE and model.gain is None}
    models = [replace(model, gain=1.0) if unknown == {config} else model for model, config in found]
    return GlueFolder(models, grid)


def _run_of(facts: Mapping[str, Any], runs: Sequence[Run]) -> Run | None:
    """The run that a checkpoint is of: by its folder, else by its name if one run alone has it."""
    by_folder = [run for run in runs if str(run.folder.resolve()) == facts.get("run_folder")]
    found = by_folder or [run for run in runs if run.name == facts.get("run")]
    return found[0] if len(found) == 1 else None


def _with_pretraining(model: Model, facts: Mapping[str, Any], run: Run | None) -> Model:
    gain, found = facts.get("attention_logit_gain"), facts.get("pretraining")
    if run is not None:
        gain = gain if gain is not None else run.gain
        found = found or run.pretraining
    if not found:
        return replace(model, gain=gain)
    return replace(model, gain=gain, seed=found["seed"], settings=found["model"], rest=found["rest"])


def published_models(published: Published) -> list[Model]:
    """The rows of Table 3, in its order."""
    models = sorted(published.glue, key=lambda model: (model[0] != "small", operator_rank(model[1])))
    return [Model(f"{size}, {operator}", size, operator, published.glue[size, operator]) for size, operator in models]
