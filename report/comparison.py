"""Which runs compare with which, and as what: the curves of one architecture on one corpus.

Losses compare at equal steps, on the same evaluation samples under the same masks. So a comparison holds runs of one
architecture, one corpus and one sequence length; runs that differ in nothing but `training.seed` are one curve, the
mean of theirs, with the band from the smallest to the largest.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report.published import Published
from report.runs import Run
from train.glue.pretraining import FREE, STUDIED

BASELINE = "original"
# The order of the papers' tables; other operators follow by name.
ORDER = ("original", "symmetric", "pairwise", "shared", "additive")
# How a label shows what a study varies. Anything else that differs within a comparison is said aloud.
SHOWN = dict(zip(STUDIED, ("{}", "S {}", "gain {:.4g}", "decay of S {}"), strict=True))


@dataclass(frozen=True)
class Curve:
    """Evaluation loss by step of one setting: one run, several seeds of it, or a published curve."""

    label: str
    operator: str
    variant: int
    """Counts the settings of one operator from 0."""
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    runs: tuple[Run, ...] = ()
    is_baseline: bool = False

    @property
    def is_published(self) -> bool:
        return not self.runs

    def at(self, step: int) -> float | None:
        """The loss at an evaluated step."""
        return self.losses[self.steps.index(step)] if step in self.steps else None


@dataclass(frozen=True)
class Comparison:
    """Curves that stand in one chart."""

    name: str
    title: str
    curves: tuple[Curve, ...]
    size: str
    unigram_entropy: float | None = None
    cautions: tuple[str, ...] = ()
    """What keeps its numbers from comparing as they seem to."""

    @property
    def own(self) -> tuple[Curve, ...]:
        return tuple(curve for curve in self.curves if not curve.is_published)

    @property
    def baseline(self) -> Curve | None:
        """The original operator's curve among one's own, else among the published."""
        baselines = [curve for curve in self.own or self.curves if curve.is_baseline]
        return baselines[0] if baselines else None


def operator_rank(operator: str) -> tuple[int, str]:
    """Sorts operators as the papers' tables do."""
    return (ORDER.index(operator) if operator in ORDER else len(ORDER), operator)


def comparisons(runs: Sequence[Run], published: Published | None) -> list[Comparison]:
    """Runs sorted into comparisons; published curves join that of their size, or make one of their own."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.architecture, run.corpus, run.settings.get("data.sequence_length")), []).append(run)
    found = [_of_runs(number, group, published) for number, group in enumerate(groups.values(), start=1)]
    taken = {comparison.size for comparison in found}
    sizes = published.sizes if published else []
    return found + [_of_published(size, published) for size in sizes if size not in taken and published]


def _of_runs(number: int, runs: Sequence[Run], published: Published | None) -> Comparison:
    settings: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        settings.setdefault(tuple(sorted((key, repr(value)) for key, value in _fixed(run).items())), []).append(run)
    apart = [part for group in settings.values() for part in (_alike(group) or ([run] for run in group))]
    groups = sorted(apart, key=lambda group: operator_rank(group[0].operator))
    labels = _labels([group[0] for group in groups])
    labels = [
        f"{label}, {group[0].name}" if labels.count(label) > 1 else label
        for label, group in zip(labels, groups, strict=True)
    ]
    baseline = _baseline(groups)
    curves, seen = [], dict[str, int]()
    for place, (label, group) in enumerate(zip(labels, groups, strict=True)):
        operator = group[0].operator
        curves.append(_curve(label, operator, seen.get(operator, 0), group, is_baseline=place == baseline))
        seen[operator] = seen.get(operator, 0) + 1
    size, corpus = runs[0].size, runs[0].corpus
    entropies = {run.environment.get("unigram_entropy") for run in runs}
    beside = _published_curves(size, published, ", published") if published else ()
    return Comparison(
        f"runs-{number}",
        f"{_title(size)} on corpus {corpus[:12] or 'unknown'}",
        (*curves, *beside),
        size,
        entropies.pop() if len(entropies) == 1 else None,
        (*_cautions(groups), *(_PUBLISHED_CAUTION if beside else ())),
    )


def _alike(group: list[Run]) -> list[list[Run]]:
    """The group as one, if its runs have an evaluated step in common."""
    return [group] if set.intersection(*({found.step for found in run.evaluations} for run in group)) else []


_PUBLISHED_CAUTION = (
    "The published curves come from another corpus and other evaluation masks: their shape compares with one's own, "
    "their values do not.",
)


def _of_published(size: str, published: Published) -> Comparison:
    title = f"{_title(size)} as published"
    return Comparison(f"published-{size}", title, _published_curves(size, published, ""), size)


def _published_curves(size: str, published: Published, suffix: str) -> tuple[Curve, ...]:
    return tuple(
        Curve(
            f"{operator}{suffix}",
            operator,
            0,
            tuple(step for step, _ in points),
            tuple(loss for _, loss in points),
            is_baseline=operator == BASELINE,
        )
        for (found, operator), points in sorted(published.losses.items(), key=lambda item: operator_rank(item[0][1]))
        if found == size
    )


def _title(size: str) -> str:
    return f"BERT-{size}" if size in ("small", "base") else size


def _curve(label: str, operator: str, variant: int, runs: Sequence[Run], *, is_baseline: bool) -> Curve:
    by_step = [{evaluation.step: evaluation.loss for evaluation in run.evaluations} for run in runs]
    steps = sorted(set.intersection(*(set(losses) for losses in by_step)))
    columns = [[losses[step] for losses in by_step] for step in steps]
    several = len(runs) > 1
    return Curve(
        label,
        operator,
        variant,
        tuple(steps),
        tuple(statistics.fmean(column) for column in columns),
        tuple(map(min, columns)) if several else None,
        tuple(map(max, columns)) if several else None,
        tuple(runs),
        is_baseline,
    )


def _fixed(run: Run) -> Mapping[str, Any]:
    return {key: value for key, value in run.settings.items() if not key.startswith(FREE)}


def _baseline(groups: Sequence[Sequence[Run]]) -> int | None:
    """The place of the plain original; of several, of that which differs from most others in what is studied alone."""
    rest = [{key: value for key, value in _fixed(group[0]).items() if key not in STUDIED} for group in groups]
    plain = [place for place, group in enumerate(groups) if group[0].operator == BASELINE and group[0].gain == 1.0]
    return max(plain, key=lambda place: rest.count(rest[place]), default=None)


def _labels(runs: Sequence[Run]) -> list[str]:
    """The operator, and the settings in which it differs from the others of its operator."""
    labels = []
    for run in runs:
        same = [_fixed(other) for other in runs if other.operator == run.operator]
        varying = sorted({key for settings in same for key in settings if len({repr(s.get(key)) for s in same}) > 1})
        named = [str(run.settings.get("model.attention_operator"))] if run.operator == "mixed" else [run.operator]
        for key in varying:
            value = run.settings.get(key)
            if key in SHOWN and key != "model.attention_operator" and value is not None:
                shown = ("off", "on")[value] if isinstance(value, bool) else value
                named.append(SHOWN[key].format(shown))
            elif key != "model.attention_operator":
                named.append(f"{key.partition('.')[2]} {value}")
        labels.append(", ".join(named))
    return labels


def _cautions(groups: Sequence[Sequence[Run]]) -> list[str]:
    fixed = [_fixed(group[0]) for group in groups]
    keys = sorted({key for settings in fixed for key in settings})
    others = [key for key in keys if key not in STUDIED and len({repr(settings.get(key)) for settings in fixed}) > 1]
    cautions = []
    if others:
        cautions.append(
            f"These runs differ in more than their attention: {', '.join(others)}. Their losses do not compare at "
            "equal steps."
        )
    unfinished = [run for group in groups for run in group if not run.finished]
    if unfinished:
        shown = "; ".join(f"{run.name}: step {run.last_step:,} of {run.max_steps:,}" for run in unfinished)
        cautions.append(f"Not finished: {shown}.")
    return cautions
