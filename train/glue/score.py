"""Scores: metrics of one fine-tuned model, and the GLUE score of several seeds.

Metric names are those of the authors' logs (Courtois et al., 2024): accuracy, accuracy_mm (MNLI's mismatched half),
f1, matthews_correlation, pearson, spearmanr. All are shares of 1; tables show percent.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from train.glue.tasks import AVERAGES, TASKS, Groups, Task

Values = npt.NDArray[np.int64] | npt.NDArray[np.float32]
Scores = Mapping[str, float]


def predictions_of(task: Task, logits: npt.NDArray[np.float32]) -> Values:
    """Logits (rows, classes) → the class of the largest; (rows, 1) of a regression → the number itself."""
    return logits[:, 0] if task.is_regression else logits.argmax(axis=1).astype(np.int64)


def scores_of(task: Task, predictions: Mapping[str, Values], labels: Mapping[str, Values]) -> dict[str, float]:
    """All metrics of a task from the predictions and labels of its validation splits."""
    scores: dict[str, float] = {}
    for split in task.validation_splits:
        suffix = "_mm" if split.endswith("_mismatched") else ""
        for metric in task.metrics:
            if metric.endswith("_mm") == bool(suffix):
                value = metric_of(metric.removesuffix("_mm"), predictions[split], labels[split])
                scores[metric] = value
    return scores


def metric_of(name: str, predictions: Values, labels: Values) -> float:
    """One metric by its name.

    A correlation with constant predictions or labels is undefined; it counts as 0, as scikit-learn counts Matthews'.
    """
    if name == "accuracy":
        return float(accuracy_score(labels, predictions))
    if name == "f1":
        return float(f1_score(labels, predictions, zero_division=0.0))
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    if name == "matthews_correlation":
        return float(matthews_corrcoef(labels, predictions))
    correlation = pearsonr if name == "pearson" else spearmanr
    return float(correlation(predictions.astype(np.float64), labels.astype(np.float64)).statistic)


def numbers_of(task: Task, scores: Scores) -> dict[str, float]:
    """The task's columns of the result table, each the mean of its metrics."""
    return {number: statistics.fmean(scores[metric] for metric in metrics) for number, metrics in task.numbers.items()}


@dataclass(frozen=True)
class Summary:
    """One number over the seeds."""

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """In the order of `seeds`."""

    @property
    def by_seed(self) -> dict[int, float]:
        return dict(zip(self.seeds, self.values, strict=True))

    def only(self, seeds: Sequence[int]) -> "Summary":
        """The same for some of the seeds, in the order given."""
        by_seed = self.by_seed
        return Summary(tuple(seeds), tuple(by_seed[seed] for seed in seeds))

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def standard_deviation(self) -> float | None:
        """Of a sample (n − 1); None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class ModelScores:
    """All that was measured of one model: every number by seed, and the average over the numbers."""

    numbers: Mapping[str, Summary]
    average: Summary | None
    """Over the groups that are there and the seeds that have them all; None if no seed has."""
    kind: str = "nine"
    """Which of AVERAGES it is."""

    @property
    def averaged(self) -> Groups:
        """The groups that the average holds."""
        return tuple(group for group in AVERAGES[self.kind][0] if set(group) <= self.numbers.keys())

    @property
    def missing(self) -> tuple[str, ...]:
        """The numbers that the average lacks."""
        return tuple(number for group in AVERAGES[self.kind][0] for number in group if group not in self.averaged)

    def only(self, numbers: Collection[str], seeds: Collection[int]) -> "ModelScores":
        """The same for some of the numbers and of the seeds that have them, averaged anew."""
        kept = {number: self.numbers[number] for number in self.numbers if number in numbers}
        return summed(
            {
                number: {seed: value for seed, value in summary.by_seed.items() if seed in seeds}
                for number, summary in kept.items()
            },
            self.kind,
        )


def model_scores(cells: Mapping[tuple[str, int], Scores], kind: str = "nine") -> ModelScores:
    """Sum up {(task, seed): metrics} of one model.

    The GLUE score of a seed is the mean of its numbers, grouped as AVERAGES[kind] says; mean and standard deviation
    are taken over the seeds' scores (Courtois et al., 2024, Table 3). A seed that lacks a number which another seed
    has is left out of the average, since means over different tasks do not compare.
    """
    by_number: dict[str, dict[int, float]] = {}
    for (task, seed), scores in sorted(cells.items()):
        for number, value in numbers_of(TASKS[task], scores).items():
            by_number.setdefault(number, {})[seed] = value
    return summed(by_number, kind)


def summed(by_number: Mapping[str, Mapping[int, float]], kind: str = "nine") -> ModelScores:
    """The scores of {number: {seed: value}}; a number without a seed is none."""
    order = [number for task in TASKS.values() for number in task.numbers if by_number.get(number)]
    numbers = {number: _summary(by_number[number]) for number in order}
    groups = [[by_number[number] for number in group] for group in ModelScores(numbers, None, kind).averaged]
    return ModelScores(numbers, _average(groups), kind)


def _summary(values: Mapping[int, float]) -> Summary:
    seeds = sorted(values)
    return Summary(tuple(seeds), tuple(values[seed] for seed in seeds))


def _average(groups: Sequence[Sequence[Mapping[int, float]]]) -> Summary | None:
    if not groups:
        return None
    complete = set.intersection(*(set(column) for group in groups for column in group))
    means = {
        seed: statistics.fmean(statistics.fmean(column[seed] for column in group) for group in groups)
        for seed in complete
    }
    return _summary(means) if means else None
