"""How far a difference between two models depends on which validation examples there happen to be.

The examples are drawn anew with replacement, the same for both models and all seeds, and every metric is computed
again: on counts of how often each example was drawn for classifications, on the drawn rows for correlations.

Shape suffixes: R resamples, N examples.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from train.glue.score import Values
from train.glue.tasks import Task

RESAMPLES = 2_000
VALUES_AT_ONCE = 4_000_000
"""Examples times resamples that are held in memory: 32 MB."""

Floats = npt.NDArray[np.float64]
Predictions = Mapping[str, Values]
"""By validation split."""


def bootstrap_interval(
    task: Task,
    number: str,
    labels: Mapping[str, Values],
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """The middle 95 % of second − first, each the mean over its seeds, over resamples of the examples.

    `first` and `second` hold one entry a seed. Drawn from a fixed seed: the same input gives the same interval.
    """
    metrics = task.numbers[number]
    split = task.validation_splits[-1 if metrics[0].endswith("_mm") else 0]
    true = labels[split]

    def mean(seeds: Sequence[Predictions], drawn_RN: npt.NDArray[np.int64]) -> Floats:
        values = [_metrics(metrics, seed[split], true, drawn_RN, is_regression=task.is_regression) for seed in seeds]
        return np.mean(values, axis=0)

    generator = np.random.default_rng(0)
    differences = [mean(second, drawn) - mean(first, drawn) for drawn in _drawn(generator, len(true), resamples)]
    low, high = np.quantile(np.concatenate(differences), (0.025, 0.975))
    return float(low), float(high)


def _drawn(generator: np.random.Generator, examples: int, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    at_once = max(1, VALUES_AT_ONCE // examples)
    for first in range(0, resamples, at_once):
        yield generator.integers(0, examples, (min(at_once, resamples - first), examples))


def _metrics(
    names: Sequence[str], predictions: Values, labels: Values, drawn_RN: npt.NDArray[np.int64], *, is_regression: bool
) -> Floats:
    """The mean of some metrics on every resample; shape (R,)."""
    if is_regression:
        found, true = predictions.astype(np.float64)[drawn_RN], labels.astype(np.float64)[drawn_RN]
        ranks = {"spearmanr": lambda values: rankdata(values, axis=1), "pearson": lambda values: values}
        return np.mean([_pearson(ranks[name](found), ranks[name](true)) for name in names], axis=0)
    counts_RN = _times_drawn(drawn_RN, len(labels))
    return np.mean([_of_counts(name.removesuffix("_mm"), predictions, labels, counts_RN) for name in names], axis=0)


def _times_drawn(drawn_RN: npt.NDArray[np.int64], examples: int) -> Floats:
    places = drawn_RN + np.arange(len(drawn_RN))[:, None] * examples
    return np.bincount(places.ravel(), minlength=len(drawn_RN) * examples).reshape(-1, examples).astype(np.float64)


def _of_counts(name: str, predictions: Values, labels: Values, counts_RN: Floats) -> Floats:
    if name == "accuracy":
        return counts_RN @ (predictions == labels) / len(labels)
    said, is_so = predictions == 1, labels == 1
    true_positive, false_positive = counts_RN @ (said & is_so), counts_RN @ (said & ~is_so)
    false_negative, true_negative = counts_RN @ (~said & is_so), counts_RN @ (~said & ~is_so)
    if name == "f1":
        return _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative)
    product = (true_positive + false_positive) * (true_positive + false_negative)
    product *= (true_negative + false_positive) * (true_negative + false_negative)
    return _ratio(true_positive * true_negative - false_positive * false_negative, np.sqrt(product))


def _pearson(one_RN: Floats, other_RN: Floats) -> Floats:
    one_RN = one_RN - one_RN.mean(axis=1, keepdims=True)
    other_RN = other_RN - other_RN.mean(axis=1, keepdims=True)
    lengths = np.sqrt((one_RN**2).sum(axis=1) * (other_RN**2).sum(axis=1))
    return _ratio((one_RN * other_RN).sum(axis=1), lengths)


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 where the metric is undefined, as in train.glue.score."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)
