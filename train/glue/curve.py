"""GLUE over the checkpoints of a run, and where it passes 95 % of the best final score.

That line is the one of Figure 3 of Courtois et al. (2024, arXiv 2406.06366): 95 % of the best run's score at its last
checkpoint, the same for all runs.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.analysis import crossing
from train.glue.score import Summary

SHARE = 0.95


@dataclass(frozen=True)
class RunCurve:
    """The GLUE score of one run by steps of pre-training, ascending."""

    run: str
    steps: tuple[int, ...]
    scores: tuple[Summary, ...]

    @property
    def means(self) -> list[float]:
        return [score.mean for score in self.scores]

    def passes(self, level: float) -> float | None:
        """The step at which the curve first reaches `level`, by linear interpolation; None if it never does."""
        return crossing(self.steps, self.means, level)


def run_curve(run: str, points: Sequence[tuple[int, Summary]]) -> RunCurve:
    """A curve of (step, score) in any order."""
    ordered = sorted(points, key=lambda point: point[0])
    return RunCurve(run, tuple(step for step, _ in ordered), tuple(score for _, score in ordered))


def line_of(curves: Sequence[RunCurve]) -> float:
    """95 % of the best final score."""
    return SHARE * max(curve.means[-1] for curve in curves)


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
    """One line a checkpoint: run, step, score, its standard deviation, number of seeds."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "step", "glue", "glue_std", "seeds"])
    for curve in curves:
        for step, score in zip(curve.steps, curve.scores, strict=True):
            deviation = score.standard_deviation
            writer.writerow([curve.run, step, score.mean, "" if deviation is None else deviation, len(score.seeds)])
    return file.getvalue()


def curve_document(curve: RunCurve) -> dict[str, Any]:
    """A curve for programs."""
    return {"run": curve.run, "steps": list(curve.steps), "glue": curve.means}
