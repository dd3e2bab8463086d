"""Differences between models and the baseline of their group, with the tests that say whether to believe them."""

from collections.abc import Sequence

from report.comparison import BASELINE
from report.document import Column, Table, Value, decimals, percent, probability
from report.models import Model
from train.analysis import holm, paired, signed_rank, welch
from train.glue.score import Summary
from train.glue.tasks import NUMBERS, heading

# Scores are shares of 1: a smaller spread than this is no spread.
ROUNDING = 1e-12
DIFFERENCE = percent(2, signed=True)
Pair = tuple[Model, Model]
"""A model and its baseline."""


def difference_tables(name: str, caption: str, models: Sequence[Model]) -> list[Table]:
    """Each model against the baseline: the average, then every number with Holm's correction; empty without pairs."""
    pairs = []
    for model in models:
        baseline = next((other for other in models if other.group == model.group and other.operator == BASELINE), None)
        if baseline is not None and model is not baseline and _comparable(model, baseline):
            pairs.append((model, baseline))
    return [_average(name, caption, pairs), _numbers(name, caption, pairs)] if pairs else []


def _comparable(model: Model, baseline: Model) -> bool:
    """Whether both averages are over the same numbers."""
    ours, theirs = model.scores.average, baseline.scores.average
    return ours is not None and theirs is not None and model.scores.averaged == baseline.scores.averaged


def _average(name: str, caption: str, pairs: Sequence[Pair]) -> Table:
    columns = [
        Column("model", "model"),
        Column("baseline", "against"),
        Column("difference", "difference", DIFFERENCE),
        Column("welch_t", "Welch's t", decimals(2)),
        Column("welch_df", "df", decimals(1)),
        Column("welch_p", "p, Welch", probability),
        Column("paired_p", "p, paired by seed", probability),
        Column("wilcoxon_p", "p, Wilcoxon", decimals(4)),
    ]
    rows: list[list[Value]] = []
    for model, baseline in pairs:
        ours, theirs = model.scores.average, baseline.scores.average
        assert ours is not None
        assert theirs is not None
        apart = welch(ours.values, theirs.values) if _vary(ours.values) and _vary(theirs.values) else None
        first, second = _aligned(ours, theirs)
        pair = (
            (paired(first, second).p_value, signed_rank(first, second).p_value)
            if _vary(_differences_of(first, second))
            else None
        )
        rows.append([
            model.label, baseline.label, ours.mean - theirs.mean,
            *((apart.statistic, apart.degrees_of_freedom, apart.p_value) if apart else (None, None, None)),
            *(pair or (None, None)),
        ])  # fmt: skip
    notes = [
        "Two-sided tests over fine-tuning seeds. Pairing is right where a seed means the same order of the data for "
        "both models. With five pairs Wilcoxon's test cannot give less than 0.0625. There is none for a single seed, "
        "or where values are all the same."
    ]
    return Table(f"{name}-tests", f"{caption}: differences to the baseline", columns, rows, notes)


def _numbers(name: str, caption: str, pairs: Sequence[Pair]) -> Table:
    """A row a number, two columns a model: its difference to the baseline, and the p-value."""
    columns = [Column("number", "number")]
    by_pair = []
    for place, (model, baseline) in enumerate(pairs, start=1):
        columns += [
            Column(f"difference_{place}", f"{model.label} − {baseline.label}", DIFFERENCE),
            Column(f"p_{place}", "p", probability),
        ]
        by_pair.append(_differences(model, baseline))
    rows: list[list[Value]] = []
    for number in NUMBERS:
        cells: list[Value] = [value for found in by_pair for value in found.get(number, (None, None))]
        if any(value is not None for value in cells):
            rows.append([heading(number), *cells])
    notes = ["p-values are of t-tests paired by seed, adjusted over the numbers of a model by Holm's rule."]
    return Table(f"{name}-by-task", f"{caption}: where the differences come from", columns, rows, notes)


def _differences(model: Model, baseline: Model) -> dict[str, tuple[float, float | None]]:
    """Number → difference of the means, and the adjusted p-value where a test is defined."""
    means: dict[str, float] = {}
    p_values: dict[str, float] = {}
    for number in NUMBERS:
        ours, theirs = model.scores.numbers.get(number), baseline.scores.numbers.get(number)
        if ours is not None and theirs is not None:
            means[number] = ours.mean - theirs.mean
            first, second = _aligned(ours, theirs)
            if _vary(_differences_of(first, second)):
                p_values[number] = paired(first, second).p_value
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {number: (mean, adjusted.get(number)) for number, mean in means.items()}


def _aligned(first: Summary, second: Summary) -> tuple[list[float], list[float]]:
    """The values of the seeds that both have."""
    ours, theirs = (
        dict(zip(first.seeds, first.values, strict=True)),
        dict(zip(second.seeds, second.values, strict=True)),
    )
    seeds = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _vary(values: Sequence[float]) -> bool:
    """Whether there are two values or more that differ by more than rounding: a test needs a variance."""
    return len(values) > 1 and max(values) - min(values) > ROUNDING


def _differences_of(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]
