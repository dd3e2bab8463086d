"""Convergence and significance: where a plateau ends, steps to a loss, and tests between seeds.

A curve is two sequences of equal length, ascending steps and their evaluation losses (or scores), of a run or as
published.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Steps = Sequence[int]
Values = Sequence[float]
Floats = npt.NDArray[np.float64]

PAIRS_TO_ENUMERATE = 12  # 4,096 signs take half a second
ROUNDING = 12  # decimals of a score; a right answer more is worth 1e-5 of the largest validation set

PLATEAU_BAND, PLATEAU_MARGIN, PLATEAU_FALL, PLATEAU_ROW = 0.3, 0.4, 1.0, 3
PLATEAU_DEFINITION = (
    "The plateau ends at the first of three evaluations in a row that lie more than 0.4 nats below its level; the "
    "level is the unigram entropy of the evaluation set where it is known, else the median loss of the stretch that "
    "stays within 0.3 nats for the largest ratio of last to first step, of all stretches that the run ends at least "
    "1 nat below."
)


@dataclass(frozen=True)
class Comparison:
    """A two-sided test of no difference."""

    statistic: float
    degrees_of_freedom: float | None
    p_value: float


def first_below(steps: Steps, losses: Values, level: float) -> int | None:
    """The first evaluated step whose loss is below `level`; None if there is none."""
    return next((step for step, loss in zip(steps, losses, strict=True) if loss < level), None)


def stays_below(steps: Steps, losses: Values, level: float) -> int | None:
    """The evaluated step from which on every loss is below `level`; None if the last one is not."""
    above = np.flatnonzero(~(np.asarray(losses) < level))
    start = int(above[-1]) + 1 if above.size else 0
    return steps[start] if start < len(steps) else None


def plateau_level(steps: Steps, losses: Values) -> float | None:
    """The loss at which a curve lingers before it falls, as PLATEAU_DEFINITION has it; None if it never does."""
    smooth = running_median(losses)
    at = np.maximum(np.asarray(steps, float), 1.0)
    longest, level = 0.0, None
    for first in range(len(smooth)):
        ahead = smooth[first:]
        band = np.maximum.accumulate(ahead) - np.minimum.accumulate(ahead)
        last = first + int(np.searchsorted(band, PLATEAU_BAND, side="right")) - 1
        middle = float(np.median(smooth[first : last + 1]))
        if math.log(at[last] / at[first]) > longest and middle >= smooth[-1] + PLATEAU_FALL and at[first] > 1.0:
            longest, level = math.log(at[last] / at[first]), middle
    return level


def plateau_end(steps: Steps, losses: Values, unigram_entropy: float | None = None) -> int | None:
    """The step at which the plateau ends, by PLATEAU_DEFINITION; None if the curve has not left one."""
    level = plateau_level(steps, losses) if unigram_entropy is None else unigram_entropy
    if level is None:
        return None
    below = np.asarray(losses) < level - PLATEAU_MARGIN
    for place in range(len(below) - PLATEAU_ROW + 1):
        if below[place : place + PLATEAU_ROW].all():
            return steps[place]
    return None


def running_median(values: Values, width: int = 5) -> Floats:
    """Each value's median with its neighbours; windows are cut at both ends."""
    half = width // 2
    array = np.asarray(values, float)
    return np.array([np.median(array[max(0, at - half) : at + half + 1]) for at in range(len(array))])


def crossing(steps: Steps, scores: Values, level: float) -> float | None:
    """Where a rising score first reaches `level`, by linear interpolation from the checkpoint before it."""
    for place, score in enumerate(scores):
        if score >= level:
            if place == 0:
                return float(steps[0])
            share = (level - scores[place - 1]) / (score - scores[place - 1])
            return steps[place - 1] + share * (steps[place] - steps[place - 1])
    return None


def welch(one: Values, other: Values) -> Comparison:
    """Welch's t-test of independent seeds, variances not assumed equal; positive where `one` is larger."""
    with warnings.catch_warnings():
        # Of a sample whose values are all the same: its variance is 0, which is exact.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        found = stats.ttest_ind(one, other, equal_var=False)
    return Comparison(float(found.statistic), float(found.df), float(found.pvalue))


def paired(one: Values, other: Values) -> Comparison:
    """Student's t-test of the differences between equal seeds."""
    found = stats.ttest_rel(one, other)
    return Comparison(float(found.statistic), float(found.df), float(found.pvalue))


def signed_rank(one: Values, other: Values) -> Comparison:
    """Wilcoxon's signed-rank test; with n pairs its p-value is never below 2^(1-n): 0.0625 for five.

    Up to 12 pairs all signs are tried, which is exact where differences tie, as they do on small validation sets; they
    tie if they differ by rounding alone. Pairs without a difference are left out.
    """
    differences = np.subtract(one, other).round(ROUNDING)
    few = len(differences) <= PAIRS_TO_ENUMERATE
    method = stats.PermutationMethod(n_resamples=2 ** len(differences)) if few else "auto"
    found = stats.wilcoxon(differences, method=method)
    return Comparison(float(found.statistic), None, float(found.pvalue))


def holm(p_values: Values) -> list[float]:
    """P-values corrected for their number by Holm's step-down method, in the order given."""
    order = np.argsort(p_values, kind="stable")
    count, corrected, so_far = len(p_values), [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, (count - rank) * p_values[place]))
        corrected[place] = so_far
    return corrected


def interval(values: Values, level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean - reach, mean + reach
