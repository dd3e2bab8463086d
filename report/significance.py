"""Differences between models and the baseline of their group, with the tests that say whether to believe them."""

from collections.abc import Sequence

from report.comparison import BASELINE
from report.document import Column, Table, Value, decimals, percent, probability
from report.models import Model
from report.replicas import Replicas, replicas_of
from train.analysis import holm, paired, signed_rank, welch
from train.glue.score import Summary
from train.glue.tasks import NUMBERS, heading

# Scores are shares of 1: a smaller spread than this is no spread.
ROUNDING = 1e-12
DIFFERENCE = percent(2, signed=True)
Pair = tuple[Replicas, Replicas]
"""A model and its baseline: of the same pre-training seeds, or one checkpoint each."""


def difference_tables(name: str, caption: str, models: Sequence[Model]) -> list[Table]:
    """Each model against the baseline: the average, then every number with Holm's correction; empty without pairs.

    The baseline is the plain original. What has two pre-training seeds in common with it is compared over these.
    """
    groups = replicas_of(models)
    pairs, notes = [], []
    for group in groups:
        baseline = _baseline_of(group, groups)
        if baseline is None:
            continue
        pair = _paired(group, baseline)
        if _comparable(*pair):
            pairs.append(pair)
            notes += _about(group, pair)
    return [_average(name, caption, pairs, notes), _numbers(name, caption, pairs)] if pairs else []


def unknown_baseline(models: Sequence[Model]) -> str:
    """What keeps a baseline from being found, in words; empty if nothing does."""
    originals = [model for model in models if model.operator == BASELINE]
    if len(originals) < 2 or any(model.gain is not None for model in originals):
        return ""
    return (
        f"Which of {', '.join(model.label for model in originals)} is the plain original is not recorded, so nothing "
        "is compared with it: give their runs to the report, or run `symbert glue` on the folder again."
    )


def _baseline_of(group: Replicas, groups: Sequence[Replicas]) -> Replicas | None:
    """The plain original of the model's kind and other settings, at its step, with most of its pre-training seeds.

    Where there is none of the same settings, or of the same step, the next best; None for the plain original itself.
    """
    model = group.first
    plain = [other for other in groups if other.first.is_plain and other.first.group == model.group]
    if model.is_plain or not plain:
        return None
    plain = [other for other in plain if other.first.rest == model.rest] or plain
    last = max((other.first.step or 0 for other in plain), default=0)
    at_step = [other for other in plain if other.first.step == model.step]
    plain = at_step or [other for other in plain if (other.first.step or 0) == last]
    return max(plain, key=lambda other: len(set(other.seeds) & set(group.seeds)))


def _paired(group: Replicas, baseline: Replicas) -> Pair:
    common = [seed for seed in group.seeds if seed in baseline.seeds]
    if common:
        return group.of_seeds(common), baseline.of_seeds(common)
    return Replicas((group.first,)), Replicas((baseline.first,))


def _comparable(model: Replicas, baseline: Replicas) -> bool:
    """Whether both averages are over the same numbers."""
    ours, theirs = model.scores, baseline.scores
    return ours.average is not None and theirs.average is not None and ours.averaged == theirs.averaged


def _about(group: Replicas, pair: Pair) -> list[str]:
    """What a reader must know of one comparison."""
    model, baseline = pair
    notes = []
    if left := [other.label for other in group.models if other not in model.models]:
        notes.append(f"Not compared, for no original has their pre-training seed: {', '.join(left)}.")
    if model.seeds and baseline.seeds and not set(model.seeds) & set(baseline.seeds):
        notes.append(f"{model.label} and {baseline.label} are of different pre-training seeds.")
    if model.first.rest and baseline.first.rest and model.first.rest != baseline.first.rest:
        notes.append(f"{model.label} and {baseline.label} differ in more than their attention.")
    return notes


def _units(pairs: Sequence[Pair]) -> list[str]:
    """Over what the tests are, where they say it of one's own models."""
    several = [model.label for model, _ in pairs if model.several]
    single = [model.label for model, _ in pairs if not model.several and model.first.run]
    notes = []
    if several:
        notes.append(
            f"Over pre-training seeds, each the mean of its fine-tuning seeds, paired by pre-training seed: "
            f"{'; '.join(several)}."
        )
    if single:
        notes.append(
            f"Over the fine-tuning seeds of one pre-training seed: {'; '.join(single)}. These tests compare "
            "checkpoints, not operators."
        )
    return notes


def _average(name: str, caption: str, pairs: Sequence[Pair], more: Sequence[str]) -> Table:
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
    over = "" if any(model.several for model, _ in pairs) else " over fine-tuning seeds"
    notes = [
        f"Two-sided tests{over}. Pairing is right where a seed means the same order of the data for "
        "both models. With five pairs Wilcoxon's test cannot give less than 0.0625. There is none for a single seed, "
        "or where values are all the same.",
        *_units(pairs),
        *more,
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


def _differences(model: Replicas, baseline: Replicas) -> dict[str, tuple[float, float | None]]:
    """Number → difference of the means, and the adjusted p-value where a test is defined."""
    means: dict[str, float] = {}
    p_values: dict[str, float] = {}
    first_scores, second_scores = model.scores, baseline.scores
    for number in NUMBERS:
        ours, theirs = first_scores.numbers.get(number), second_scores.numbers.get(number)
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
