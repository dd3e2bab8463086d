"""The result table of a GLUE folder: its rows, and what a reader must know beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from train.glue.curve import Point, RunCurve, curve_notes, curves_of
from train.glue.degenerate import degeneration
from train.glue.names import names_of, run_notes, runs_of
from train.glue.published import Published
from train.glue.score import ModelScores, Scores, model_scores
from train.glue.tasks import AVERAGES, NUMBERS, TASKS, heading, task_of

NONE = "–"
Records = Mapping[tuple[str, int], Mapping[str, Any]]
"""Of one model by task and seed: a cell, or its noise."""


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    name: str
    scores: ModelScores
    weights: str = ""
    facts: Mapping[str, Any] | None = None
    degenerate: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """(task, seed) of degenerate runs, and what they are; they count in all means."""
    noise: str = ""
    """What was done to the validation sentences, as `typos 0.1`; empty for the clean ones."""
    run: str = ""
    """The run that it is a checkpoint of, by a name that no other run has."""

    @property
    def step(self) -> int | None:
        """Steps of pre-training, where they are known."""
        return (self.facts or {}).get("step")


@dataclass(frozen=True)
class Table:
    """All models of a GLUE folder, under one protocol."""

    rows: Sequence[Row]
    protocol: Mapping[str, Any]
    average: str = "nine"
    """Which of AVERAGES the GLUE score is."""
    remarks: Sequence[str] = ()
    """Further notes."""
    published: Published | None = None
    """Others' scores, shown below."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """The nine columns, and those of other tasks that a model has."""
        extra = [number for task in TASKS.values() if not task.in_average for number in task.numbers]
        present = {number for row in self.rows for number in row.scores.numbers}
        return (*NUMBERS, *(number for number in extra if number in present))

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers: missing tasks, and seeds that are not the same everywhere."""
        notes = missing_notes([(row.name, row.scores) for row in self.rows])
        for row in self.rows:
            seeds = {number: summary.seeds for number, summary in row.scores.numbers.items()}
            if len(set(seeds.values())) > 1:
                uneven = "; ".join(f"{heading(number)} {_listed(present)}" for number, present in seeds.items())
                average = row.scores.average
                over = f"seeds {_listed(average.seeds)}" if average else "no seed"
                notes.append(f"{row.name}: seeds differ ({uneven}); the average is over {over}")
        notes += _unlike_seeds([row for row in self.rows if not row.noise])
        notes += [note for row in self.rows for note in _about_degenerate(row)]
        theirs = self.published.notes(self.average) if self.published else ()
        curves, left_out = curves_of(self._points())
        return [*notes, *curve_notes(curves), *left_out, *self.remarks, *theirs]

    def curves(self) -> list[RunCurve]:
        """The score over pre-training of every run with several checkpoints, on the numbers and seeds of them all."""
        return curves_of(self._points())[0]

    def _points(self) -> dict[str, list[Point]]:
        points: dict[str, list[Point]] = {}
        for row in self.rows:
            if not row.noise and row.step is not None:
                model = ((row.facts or {}).get("pretraining") or {}).get("model", "")
                points.setdefault(row.run, []).append(Point(row.step, row.scores, row.weights, model))
        return points


def table_of(cells: Iterable[Mapping[str, Any]], grid: Mapping[str, Any], average: str = "nine") -> Table:
    """The table of all cells of a GLUE folder, models in the order in which they came to it."""
    by_model: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {weights: {} for weights in grid["checkpoints"]}
    damaged: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {weights: {} for weights in grid["checkpoints"]}
    for cell in cells:
        identity = cell["identity"]
        by_model[identity["weights"]][identity["task"], identity["seed"]] = cell
        if "noise" in cell:
            damaged[identity["weights"]][identity["task"], identity["seed"]] = cell["noise"]
    names, runs = names_of(grid["checkpoints"]), runs_of(grid["checkpoints"])
    noise, rows = noise_of(grid["protocol"]), []
    for weights, facts in grid["checkpoints"].items():
        if clean := by_model[weights]:
            found = model_scores(_scores(clean), average)
            rows.append(Row(names[weights], found, weights, facts, degenerate_of(clean), run=runs[weights]))
        if noisy := damaged[weights]:
            found = model_scores(_scores(noisy), average)
            rows.append(Row(f"{names[weights]}, {noise}", found, weights, facts, degenerate_of(noisy), noise))
    remarks = [*run_notes(grid["checkpoints"]), *_own_settings(by_model)]
    return Table(rows, grid["protocol"], average, remarks)


def noise_of(protocol: Mapping[str, Any]) -> str:
    """The kind of noise and its rate, as `typos 0.1`; empty for none."""
    return f"{protocol['noise']} {protocol['noise_rate']:g}" if "noise" in protocol else ""


def degenerate_of(records: Records) -> dict[tuple[str, int], str]:
    """(task, seed) of the degenerate runs of a model, and what they are."""
    found = {(task, seed): degeneration(TASKS[task], record) for (task, seed), record in records.items()}
    return {key: what for key, what in found.items() if what}


def _scores(records: Records) -> dict[tuple[str, int], Scores]:
    return {key: record["scores"] for key, record in records.items()}


def _own_settings(cells: Mapping[str, Records]) -> list[str]:
    """What is not the protocol's, of the tasks that are there; a cell holds what was used."""
    present = {task for records in cells.values() for task, _ in records}
    return [
        f"{name}: no part of the average; unless set, {', '.join(f'{key} {value:g}' for key, value in own.items())}"
        for name, own in ((task.name, task.settings) for task in TASKS.values())
        if own and name in present
    ]


def missing_notes(models: Iterable[tuple[str, ModelScores]]) -> list[str]:
    """A line for all models whose averages lack the same numbers."""
    alike: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for name, scores in models:
        if scores.missing:
            alike.setdefault((scores.kind, len(scores.averaged), scores.missing), []).append(name)
    return [
        f"{', '.join(names)}: the average holds {held} of {AVERAGES[kind][1]}; "
        f"missing: {', '.join(map(heading, absent))}"
        for (kind, held, absent), names in alike.items()
    ]


def _unlike_seeds(rows: Sequence[Row]) -> list[str]:
    """A line if the averages of two models are over different seeds."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for row in rows:
        if row.scores.average is not None:
            alike.setdefault(row.scores.average.seeds, []).append(row.name)
    if len(alike) < 2:
        return []
    listed = "; ".join(f"{_listed(seeds)} of {', '.join(names)}" for seeds, names in alike.items())
    return [f"the models' averages are over different seeds: {listed}; symbert glue-compare takes those of both"]


def _about_degenerate(row: Row) -> list[str]:
    notes = []
    for number, summary in row.scores.numbers.items():
        bad = {seed: what for (task, seed), what in row.degenerate.items() if task == task_of(number).name}
        rest = summary.only([seed for seed in summary.seeds if seed not in bad])
        if bad:
            means = (
                f"{100 * rest.mean:.2f} without, {100 * summary.mean:.2f} with"
                if rest.seeds
                else f"no other seed, so {100 * summary.mean:.2f} is the score of degenerate runs"
            )
            notes.append(f"{row.name}: {heading(number)} is degenerate under {_reasons(bad)}; {means}")
    return notes


def _reasons(bad: Mapping[int, str]) -> str:
    by_reason: dict[str, list[int]] = {}
    for seed, what in sorted(bad.items()):
        by_reason.setdefault(what, []).append(seed)
    return ", ".join(f"seed {_listed(seeds)} ({what})" for what, seeds in by_reason.items())


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))
