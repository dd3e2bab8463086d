"""A grid for each of several learning rates, and the table of every model's best rate on every task.

    OUT/learning-rate-1e-05/       a GLUE folder a rate
    OUT/table.{md,tex,csv,json}    for each model and task the rate with the best mean over the seeds

The choice is made on the validation sets that the scores come from, so they are a little too good; the table says
which rate was taken.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from durable.progress import ProgressCallback, silent
from durable.signals import StopRequest
from train.errors import TrainError
from train.glue.cells import read_cells, read_grid
from train.glue.grid import run_grid
from train.glue.layouts import write_files
from train.glue.published import read_published
from train.glue.request import Outcome, Request
from train.glue.score import numbers_of
from train.glue.table import Table, table_of
from train.glue.tasks import TASKS

Cells = list[dict[str, Any]]


def run_search(
    request: Request,
    rates: Sequence[float],
    *,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Outcome[Table]:
    """Run the grid under each learning rate and write the table of the best. Raises as run_grid does."""
    if request.out.is_dir() and any(path.name in ("grid.json", "cells") for path in request.out.iterdir()):
        raise TrainError(f"{request.out} is a GLUE folder of one protocol, expected a new folder for a search")
    outcomes: dict[float, Outcome[Table]] = {}
    grids: dict[float, tuple[Cells, Mapping[str, Any]]] = {}
    for rate in rates:
        out = request.out / f"learning-rate-{rate:g}"
        protocol = request.protocol.model_copy(update={"learning_rate": rate})
        one = replace(request, out=out, protocol=protocol)
        outcomes[rate] = run_grid(one, progress=progress, notice=notice, stop=stop)
        grids[rate] = read_cells(out), read_grid(out)
        if stop is not None and stop.requested:
            break
    table = replace(best_of(grids, request.average), published=read_published() if request.published else None)
    write_files(request.out, table)
    return _together(outcomes, len(rates), table)


def _together(outcomes: Mapping[float, Outcome[Table]], rates: int, table: Table) -> Outcome[Table]:
    some = next(iter(outcomes.values()))
    cells = some.trained + some.found + some.left + len(some.failed)
    return Outcome(
        trained=sum(outcome.trained for outcome in outcomes.values()),
        found=sum(outcome.found for outcome in outcomes.values()),
        left=sum(outcome.left for outcome in outcomes.values()) + cells * (rates - len(outcomes)),
        failed={
            f"{cell} at {rate:g}": reason
            for rate, outcome in outcomes.items()
            for cell, reason in outcome.failed.items()
        },
        table=table,
    )


def best_of(grids: Mapping[float, tuple[Cells, Mapping[str, Any]]], average: str = "nine") -> Table:
    """The table that takes, for each model and task, the cells of the rate with the best mean."""
    means: dict[tuple[str, str], dict[float, float]] = {}
    for rate, (cells, _) in grids.items():
        values: dict[tuple[str, str], list[float]] = {}
        for cell in cells:
            identity = cell["identity"]
            score = statistics.fmean(numbers_of(TASKS[identity["task"]], cell["scores"]).values())
            values.setdefault((identity["weights"], identity["task"]), []).append(score)
        for key, scores in values.items():
            means.setdefault(key, {})[rate] = statistics.fmean(scores)
    # Of equal means the smaller rate, whatever order they were given in.
    best = {key: max(sorted(by_rate), key=by_rate.__getitem__) for key, by_rate in means.items()}
    chosen = [
        cell
        for rate, (cells, _) in grids.items()
        for cell in cells
        if best[cell["identity"]["weights"], cell["identity"]["task"]] == rate
    ]
    last = list(grids.values())[-1][1]
    grid = {**last, "protocol": {**last["protocol"], "learning_rate": sorted(grids)}}
    table = table_of(chosen, grid, average)
    remarks = [
        f"{row.name}: best learning rate "
        + ", ".join(f"{task} {best[row.weights, task]:g}" for task in TASKS if (row.weights, task) in best)
        for row in table.rows
        if not row.noise
    ]
    return replace(table, remarks=[*table.remarks, *remarks])
