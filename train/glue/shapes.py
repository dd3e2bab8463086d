"""What a folder of cells must hold before anybody computes with it. Others may have touched its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from durable.checked import Shape, damaged
from durable.errors import with_hint
from train.errors import TrainError
from train.glue.tasks import TASKS

AGAIN = "delete it; the command that made the folder makes it again"
Seed = Annotated[int, Field(ge=0)]


class _Protocol(Shape):
    noise: str | None = None
    noise_rate: float | None = None

    @model_validator(mode="after")
    def _has_a_rate(self) -> Self:
        if (self.noise is None) is not (self.noise_rate is None):
            raise ValueError("noise and noise_rate together")
        return self


class _Task(Shape):
    data: str
    rows: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it


class _Pretraining(Shape):
    seed: int
    model: str
    rest: str


class _Checkpoint(Shape):
    name: str
    model: str
    run: str
    run_folder: str = ""
    step: int | None = None
    attention_logit_gain: float | None = None
    pretraining: _Pretraining | None = None


class Grid(Shape):
    """grid.json."""

    protocol: _Protocol
    tasks: dict[str, _Task]
    checkpoints: dict[str, _Checkpoint]


class _Identity(Shape):
    weights: str
    task: str
    data: str
    seed: Seed
    protocol: dict[str, Any] = {}  # noqa: RUF012


class _Scored(Shape):
    scores: dict[str, float]
    predictions: dict[str, str]


class _Timing(Shape):
    seeds_together: list[Seed] = []  # noqa: RUF012


class Cell(_Scored):
    """cells/<12 hex>/<task>-<seed>.json."""

    identity: _Identity
    noise: _Scored = _Scored(scores={}, predictions={})
    timing: _Timing = _Timing()


class Labels(Shape):
    """labels/<task>.json."""

    labels: dict[str, str]


class TableFile(Shape):
    """table.json, as far as it is read again."""

    average: str


class _FailedIdentity(Shape):
    weights: str


class FailedCell(Shape):
    """failed/<12 hex>/<task>-<seed>.json."""

    identity: _FailedIdentity
    error: str


def refuse_strange_cell(cell: Mapping[str, Any], path: Path, grid: Mapping[str, Any], grid_name: str) -> None:
    """Raises TrainError for a cell that lacks a score of its task, or is none of those that grid.json is of."""
    identity = cell["identity"]
    weights, name, seed = identity["weights"], identity["task"], identity["seed"]
    if name not in grid["tasks"]:
        raise _strange(path, f"{grid_name} lists no task `{name}`", "task")
    if weights not in grid["checkpoints"]:
        what = f"{grid_name} lists no checkpoint with its weights, {weights[:12]}"
        raise _strange(path, what, "checkpoint")
    if identity["data"] != grid["tasks"][name]["data"]:
        raise _strange(path, f"it is of other data than {grid_name} has as {name}")
    if (path.parent.name, path.stem) != (weights[:12], f"{name}-{seed}"):
        raise _strange(path, f"its identity is that of {weights[:12]}/{name}-{seed}.json")
    for record in (cell, cell["noise"]) if "noise" in cell else (cell,):
        for metric in TASKS[name].metrics if name in TASKS else ():
            if metric not in record["scores"]:
                raise damaged(path, f"it has no score `{metric}`, which {name} has", TrainError, AGAIN)


def _strange(path: Path, reason: str, lacking: str = "") -> TrainError:
    finds = f", or run its command on this folder with that {lacking} too: it then finds the cell" if lacking else ""
    return with_hint(TrainError(f"{path} does not belong here: {reason}"), f"take it away{finds}")
