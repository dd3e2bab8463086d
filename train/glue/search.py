"""A grid for each of several learning rates, and the table of every model's best rate on every task.

    OUT/learning-rate-1e-05/       a GLUE folder a rate
    OUT/table.{md,tex,csv,json}    for each model and task the rate with the best mean over the seeds

The choice is made on the validation sets that the scores come from, so they are a little too good; the table says
which rate was taken. It is made among all rates of the folder, whichever command trained them, that have as many seeds
as any of them: a rate is not the better for a seed that fails.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from durable.errors import with_hint
from durable.locks import folder_lock
from durable.progress import ProgressCallback, silent
from durable.settings import difference
from durable.signals import StopRequest
from train.errors import TrainError
from train.glue.cells import GRID, read_cells, read_grid
from train.glue.failures import failure_notes
from train.glue.grid import run_grid
from train.glue.layouts import write_files
from train.glue.published import read_published
from train.glue.read import read_task
from train.glue.request import Outcome, Request
from train.glue.score import numbers_of
from train.glue.table import Table, table_of
from train.glue.tasks import TASKS

Cells = list[dict[str, Any]]
PREFIX = "learning-rate-"


def run_search(
    request: Request,
    rates: Sequence[float],
    *,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Outcome[Table]:
    """Run the grid under each learning rate and write the table of the best. Raises as run_grid does."""
    _refuse_foreign_folder(request.out)
    _refuse_other_settings(request)
    outcomes: dict[float, Outcome[Table]] = {}
    for rate in rates:
        protocol = request.protocol.model_copy(update={"learning_rate": rate})
        one = replace(request, out=request.out / f"{PREFIX}{rate!r}", protocol=protocol)
        outcomes[rate] = run_grid(one, progress=progress, notice=notice, stop=stop)
        if stop is not None and stop.requested:
            break
    with folder_lock(request.out):  # each rate is held by its own grid
        table = _table(request)
        write_files(request.out, table)
    return _together(outcomes, len(rates), table)


def _refuse_foreign_folder(out: Path) -> None:
    names = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
    if {GRID, "cells"} & set(names):
        raise TrainError(f"{out} is a GLUE folder of one protocol, expected a new folder for a search")
    if names and not any(name.startswith(PREFIX) for name in names):
        error = TrainError(f"{out} holds other things ({min(names)}) and no {PREFIX}…, expected a folder of a search")
        raise with_hint(error, "give --out a new folder")


def _grids(out: Path) -> dict[float, tuple[Cells, Mapping[str, Any]]]:
    """The cells and the record of every rate that the folder holds, by rate."""
    folders = sorted(path.parent for path in out.glob(f"{PREFIX}*/{GRID}"))
    grids = {folder: read_grid(folder) for folder in folders}
    return {grid["protocol"]["learning_rate"]: (read_cells(folder), grid) for folder, grid in grids.items()}


def _refuse_other_settings(request: Request) -> None:
    """Raises TrainError where a rate of the folder was trained under another protocol, or on other data."""
    for _, grid in _grids(request.out).values():
        old, new = ({**protocol, "learning_rate": None} for protocol in (grid["protocol"], request.protocol.record()))
        changes = difference(old, new)
        for task in request.tasks:
            if task.name in grid["tasks"]:
                data = {task.name: {"data": read_task(task, request.data_dir).sha256}}
                changes += difference({task.name: {"data": grid["tasks"][task.name]["data"]}}, data)
        if changes:
            raise with_hint(
                TrainError(f"{request.out} was made otherwise: {'; '.join(changes)}"),
                "give another --out, or the settings of the first run",
            )


def _table(request: Request) -> Table:
    table = best_of(_grids(request.out), request.average)
    failures = [
        f"{folder.name}: {note}"
        for folder in sorted(request.out.glob(f"{PREFIX}*"))
        if (folder / GRID).is_file()
        for note in failure_notes(folder, read_grid(folder))
    ]
    theirs = read_published() if request.published else None
    return replace(table, published=theirs, remarks=[*table.remarks, *failures])


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
    """The table that takes, for each model and task, the cells of the rate with the best mean.

    Rates that lack a seed that another one has are left out of the choice, and named.
    """
    values: dict[tuple[str, str], dict[float, dict[int, float]]] = {}
    for rate, (cells, _) in sorted(grids.items()):
        for cell in cells:
            identity = cell["identity"]
            score = statistics.fmean(numbers_of(TASKS[identity["task"]], cell["scores"]).values())
            by_rate = values.setdefault((identity["weights"], identity["task"]), {})
            by_rate.setdefault(rate, {})[identity["seed"]] = score
    # Of equal means the smaller rate, whatever order they were given in.
    best = {key: max(whole := _whole(by_rate), key=whole.__getitem__) for key, by_rate in values.items()}
    chosen = [
        cell
        for rate, (cells, _) in grids.items()
        for cell in cells
        if best[cell["identity"]["weights"], cell["identity"]["task"]] == rate
    ]
    table = table_of(chosen, _one_record([record for _, (_, record) in sorted(grids.items())]), average)
    remarks = []
    for row in table.rows:
        if not row.noise:
            own = [task for task in TASKS if (row.weights, task) in best]
            rates = ", ".join(f"{task} {best[row.weights, task]:g}" for task in own)
            remarks.append(f"{row.name}: best learning rate {rates}")
            for task in own:
                by_rate = values[row.weights, task]
                if short := by_rate.keys() - _whole(by_rate).keys():
                    listed = ", ".join(f"{rate:g}" for rate in sorted(short))
                    remarks.append(f"{row.name}: {task} lacks a seed at {listed}, which is not in the choice")
    return replace(table, remarks=[*table.remarks, *remarks])


def _whole(by_rate: Mapping[float, Mapping[int, float]]) -> dict[float, float]:
    """The mean of each rate that has as many seeds as any, in ascending order of the rates."""
    most = max(map(len, by_rate.values()))
    return {rate: statistics.fmean(seeds.values()) for rate, seeds in sorted(by_rate.items()) if len(seeds) == most}


def _one_record(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rates' folders say of protocol, tasks and checkpoints, in one."""
    merged: dict[str, Any] = {"protocol": dict(records[-1]["protocol"])}
    merged["protocol"]["learning_rate"] = [record["protocol"].get("learning_rate") for record in records]
    for kind in ("tasks", "checkpoints"):
        merged[kind] = {name: facts for record in records for name, facts in record.get(kind, {}).items()}
    return merged
