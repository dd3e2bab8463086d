"""GLUE over the checkpoints of a run, and where it passes 95 % of the best final score.

That line is the one of Figure 3 of Courtois et al. (2024, arXiv 2406.06366): 95 % of the best model's score at its last
checkpoint, the mean over its pre-training seeds where there are several, the same for all runs. So all points are over
the same numbers, those of one run over the same seeds.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from train.analysis import crossing
from train.glue.score import ModelScores, Summary
from train.glue.tasks import AVERAGES, Groups, heading

SHARE = 0.95


@dataclass(frozen=True)
class Point:
    """A checkpoint of a run, and what was measured of it."""

    step: int
    scores: ModelScores
    weights: str = ""
    model: str = ""
    """Equal for runs that differ in their pre-training seed alone; empty where that is not known."""


@dataclass(frozen=True)
class RunCurve:
    """The GLUE score of one run by steps of pre-training, ascending."""

    run: str
    steps: tuple[int, ...]
    scores: tuple[Summary, ...]
    weights: tuple[str, ...]
    """sha256 of the weights of each checkpoint."""
    model: str = ""
    """As of its points."""

    @property
    def means(self) -> list[float]:
        return [score.mean for score in self.scores]

    def passes(self, level: float) -> float | None:
        """The step at which the curve first reaches `level`, by linear interpolation; None if it never does."""
        return crossing(self.steps, self.means, level)


def run_curve(run: str, points: Sequence[tuple[int, Summary, str]]) -> RunCurve:
    """A curve of (step, score, hash of the weights) in any order."""
    steps, scores, weights = zip(*sorted(points, key=lambda point: point[0]), strict=True)
    return RunCurve(run, steps, scores, weights)


def comparable(runs: Mapping[str, Sequence[Point]]) -> tuple[dict[str, list[Point]], list[str]]:
    """The runs with several checkpoints, by step, on what can be compared; and notes on what that leaves out.

    All points hold the numbers that each of them has, and those of a run the seeds that each of them has. A run has
    no points if nothing is left, or if there are two checkpoints of one step.
    """
    several = {run: [point for point in points if point.scores.averaged] for run, points in runs.items()}
    several = {run: sorted(points, key=lambda p: p.step) for run, points in several.items() if len(points) > 1}
    notes, found = [], {}
    for run, points in list(several.items()):
        steps = [point.step for point in points]
        if twice := sorted({step for step in steps if steps.count(step) > 1}):
            notes.append(f"{run}: no curve, since there is more than one checkpoint of step {twice[0]:,}")
            del several[run]
    if not several:
        return {}, notes
    numbers, note = _common_numbers([point for points in several.values() for point in points])
    notes += [note] if note else []
    for run, points in several.items() if numbers else ():
        found[run], note = _on_common_seeds(run, points, numbers)
        notes += [note] if note else []
    return {run: points for run, points in found.items() if points}, notes


def _common_numbers(points: Sequence[Point]) -> tuple[set[str], str]:
    """The numbers of the averages of all points, and a note if some have others too."""
    kind = points[0].scores.kind
    groups, name = AVERAGES[kind]
    common: Groups = tuple(group for group in groups if all(group in point.scores.averaged for point in points))
    numbers = {number for group in common for number in group}
    rest = [
        heading(n) for group in groups for n in group if n not in numbers and any(n in p.scores.numbers for p in points)
    ]
    if not rest:
        return numbers, ""
    if not numbers:
        return numbers, f"no curve, since the checkpoints have none of the {name} in common"
    held = f"the curves hold {len(common)} of {name}, those of all checkpoints"
    return numbers, f"{held}; left out: {', '.join(rest)}"


def _on_common_seeds(run: str, points: Sequence[Point], numbers: set[str]) -> tuple[list[Point], str]:
    """The points over these numbers and the seeds that all have, and a note if there are others."""
    columns: list[set[int]] = [set(point.scores.numbers[number].seeds) for point in points for number in numbers]
    seeds: set[int] = set.intersection(*columns)
    rest = sorted(set.union(*columns) - seeds)
    if not seeds:
        return [], f"{run}: no curve, since its checkpoints have no seed in common"
    kept = [replace(point, scores=point.scores.only(numbers, seeds)) for point in points]
    if not rest:
        return kept, ""
    over, others = (",".join(map(str, sorted(some))) for some in (seeds, rest))
    return kept, f"{run}: the curve is over seed {over}, which all its checkpoints have; left out: {others}"


def curves_of(runs: Mapping[str, Sequence[Point]]) -> tuple[list[RunCurve], list[str]]:
    """The curves of runs, on what `comparable` leaves, and its notes."""
    found, notes = comparable(runs)
    curves = [
        replace(
            run_curve(run, [(p.step, p.scores.average, p.weights) for p in points if p.scores.average is not None]),
            model=points[0].model,
        )
        for run, points in found.items()
    ]
    return curves, notes


def line_of(curves: Sequence[RunCurve]) -> float:
    """95 % of the best final score."""
    return SHARE * best_final((curve.model or curve.run, curve.means[-1]) for curve in curves)


def best_final(finals: Iterable[tuple[str, float]]) -> float:
    """Of (model, final score of a run) the best model's score: the mean of its runs, not its luckiest seed."""
    by_model: dict[str, list[float]] = {}
    for model, score in finals:
        by_model.setdefault(model, []).append(score)
    return max(map(statistics.fmean, by_model.values()))


def curve_notes(curves: Sequence[RunCurve]) -> list[str]:
    """A sentence for each run: where it passes the line."""
    if not curves:
        return []
    line, sentences = line_of(curves), []
    for curve in curves:
        step = curve.passes(line)
        where = f"at step {step:,.0f}" if step is not None else f"not within {curve.steps[-1]:,} steps"
        sentences.append(f"{curve.run} passes 95 % of the best final score ({100 * line:.2f}) {where}")
    return sentences


def curves_as_csv(curves: Sequence[RunCurve]) -> str:
    """One line a checkpoint: run, step, score, its standard deviation, number of seeds, hash of the weights."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "step", "glue", "glue_std", "seeds", "weights"])
    for curve in curves:
        for step, score, weights in zip(curve.steps, curve.scores, curve.weights, strict=True):
            deviation = score.standard_deviation
            shown = "" if deviation is None else deviation
            writer.writerow([curve.run, step, score.mean, shown, len(score.seeds), weights])
    return file.getvalue()


def curve_document(curve: RunCurve) -> dict[str, Any]:
    """A curve for programs."""
    return {"run": curve.run, "steps": list(curve.steps), "glue": curve.means, "weights": list(curve.weights)}
