"""The pre-training section: evaluation loss by step, losses at equal steps, steps to a loss."""

from collections.abc import Sequence

from report.comparison import Comparison, Curve
from report.document import (
    Block,
    Charts,
    Column,
    Level,
    LineChart,
    Mark,
    Paragraph,
    Section,
    Series,
    Table,
    Value,
    count,
    decimals,
)  # fmt: skip
from report.published import FIGURE_2_LEVELS, FIGURE_2_STEPS, SOURCE
from train.analysis import PLATEAU_DEFINITION, first_below, plateau_end, stays_below

# Their plateau lies at 5.9 to 6.1 nats; "half the steps" is about the first evaluation below this.
PUBLISHED_PLATEAU = 5.5
# Of the steps that all runs have in common; the last is the end.
EQUAL_STEPS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
# Losses that are worth asking for are those of the baseline at these shares of its steps.
BASELINE_SHARES = (0.25, 0.5, 0.75, 1.0)


def convergence_section(comparisons: Sequence[Comparison]) -> Section:
    """Everything about how fast the losses fell."""
    blocks: list[Block] = [
        Paragraph(
            "Losses are in nats per masked token, on evaluation samples whose masks never change. Each curve carries "
            "its name and its marker; a ring marks where it has left the plateau."
        ),
        Charts([_chart(comparison) for comparison in comparisons]),
    ]
    for comparison in comparisons:
        blocks += [*_paragraphs(comparison), _losses(comparison), _steps(comparison)]
    return Section("pre-training", "Pre-training", blocks)


def plateau_of(comparison: Comparison, curve: Curve) -> int | None:
    """Where the curve has left the plateau; None if it has not."""
    if curve.is_published:
        return first_below(curve.steps, curve.losses, PUBLISHED_PLATEAU)
    return plateau_end(curve.steps, curve.losses, comparison.unigram_entropy)


def _chart(comparison: Comparison) -> LineChart:
    own = comparison.own
    series = [
        Series(
            curve.label, curve.operator, curve.steps, curve.losses, curve.low, curve.high, curve.variant,
            is_background=bool(own) and curve.is_published,
        )
        for curve in sorted(comparison.curves, key=lambda curve: not curve.is_published)
    ]  # fmt: skip
    marks = []
    for curve in own or comparison.curves:
        end = plateau_of(comparison, curve)
        if end is not None:
            loss = curve.at(end)
            assert loss is not None
            marks.append(Mark(end, loss, curve.operator))
    entropy = comparison.unigram_entropy
    published = f", {SOURCE}, Figure 2" if not own else ""
    return LineChart(
        f"loss-{comparison.name}",
        f"Evaluation loss by step: {comparison.title}{published}",
        _description(comparison),
        "step",
        "evaluation loss (nats)",
        series,
        [] if entropy is None else [Level(entropy, "unigram entropy")],
        marks,
        x_limit=max(curve.steps[-1] for curve in own) if own else None,
    )


def _description(comparison: Comparison) -> str:
    """What the chart shows, in words, for those who do not see it."""
    told = []
    for curve in comparison.own or comparison.curves:
        end = plateau_of(comparison, curve)
        left = f", below the plateau from step {end:,}" if end is not None else ""
        told.append(
            f"{curve.label} falls from {curve.losses[0]:.2f} at step {curve.steps[0]:,} to {curve.losses[-1]:.2f} at "
            f"step {curve.steps[-1]:,}{left}"
        )
    return f"Line chart of evaluation loss over training steps. {'; '.join(told)}."


def _paragraphs(comparison: Comparison) -> list[Paragraph]:
    """What there is to say before the tables: cautions, then the plateau against the baseline's."""
    paragraphs = [Paragraph(caution) for caution in comparison.cautions]
    baseline = comparison.baseline
    if baseline is None:
        return paragraphs
    reference = plateau_of(comparison, baseline)
    if not reference:
        return paragraphs
    told = []
    for curve in comparison.own or comparison.curves:
        end = plateau_of(comparison, curve)
        if curve is not baseline and end is not None:
            told.append(f"{curve.label} after {end:,} steps ({end / reference:.2f} of the baseline's)")
    if told:
        text = f"{comparison.title}: {baseline.label} leaves the plateau after {reference:,} steps, {', '.join(told)}."
        paragraphs.append(Paragraph(text))
    return paragraphs


def _losses(comparison: Comparison) -> Table:
    steps = _equal_steps(comparison)
    number = decimals(3)
    columns = [Column("model", "model"), *(Column(f"step_{step}", f"{step:,}", number) for step in steps)]
    rows: list[list[Value]] = [[curve.label, *(curve.at(step) for step in steps)] for curve in comparison.curves]
    notes = []
    baseline = comparison.baseline
    if not steps:
        notes.append("No step is there at which all of them were evaluated.")
    elif baseline is not None:
        signed = decimals(3, signed=True)
        for curve in comparison.own or comparison.curves:
            if curve is not baseline:
                shown = [_difference(curve, baseline, step) for step in steps]
                listed = ", ".join("–" if value is None else signed(value) for value in shown)
                notes.append(f"{curve.label} − {baseline.label}: {listed}.")
    several = [curve.label for curve in comparison.own if len(curve.runs) > 1]
    if several:
        notes.append(f"Means over the pre-training seeds: {', '.join(several)}.")
    errors = [run.evaluations[-1].standard_error for curve in comparison.own for run in curve.runs if curve.runs]
    known = [error for error in errors if error is not None]
    if known:
        notes.append(
            f"Standard error of the last evaluation over its samples: at most {max(known):.3f} nats; it is mostly "
            "common to runs with the same samples and masks, so differences at equal steps are surer than that."
        )
    return Table(f"loss-{comparison.name}", f"Evaluation loss at equal steps: {comparison.title}", columns, rows, notes)


def _steps(comparison: Comparison) -> Table:
    levels = _levels(comparison)
    columns = [
        Column("model", "model"),
        Column("seeds", "seeds", count),
        Column("plateau_end", "plateau ends", count),
        *(Column(f"below_{level:.4g}", f"below {level:.4g}", count) for level in levels),
        Column("stays_below", f"stays below {levels[-1]:.4g}", count),
        Column("ratio", "steps / baseline's", decimals(2)),
        Column("final_loss", "last loss", decimals(3)),
    ]
    baseline = comparison.baseline
    reference = first_below(baseline.steps, baseline.losses, levels[-1]) if baseline else None
    rows: list[list[Value]] = []
    for curve in comparison.curves:
        reached: list[Value] = [first_below(curve.steps, curve.losses, level) for level in levels]
        last = reached[-1]
        share = last / reference if isinstance(last, int) and reference else None
        stays = stays_below(curve.steps, curve.losses, levels[-1])
        plateau, seeds = plateau_of(comparison, curve), len(curve.runs) or 1
        rows.append([curve.label, seeds, plateau, *reached, stays, share, curve.losses[-1]])
    notes = [
        "The step is that of the first evaluation whose loss is below the level; “stays” is that from which on every "
        "evaluation is.",
    ]
    notes += [PLATEAU_DEFINITION] if comparison.own else []
    if any(curve.is_published for curve in comparison.curves):
        notes.append(f"Of a published curve, the plateau ends at the first evaluation below {PUBLISHED_PLATEAU} nats.")
    return Table(f"steps-{comparison.name}", f"Steps to a loss: {comparison.title}", columns, rows, notes)


def _difference(curve: Curve, baseline: Curve, step: int) -> float | None:
    loss, reference = curve.at(step), baseline.at(step)
    return None if loss is None or reference is None else loss - reference


def _equal_steps(comparison: Comparison) -> list[int]:
    """Steps at which every curve of one's own (or every published one) was evaluated, spread over the run."""
    if not comparison.own:
        return [step for step in FIGURE_2_STEPS if any(curve.at(step) for curve in comparison.curves)]
    common = sorted(set.intersection(*(set(curve.steps) for curve in comparison.own)))
    if not common:
        return []
    wanted = [share * common[-1] for share in EQUAL_STEPS]
    return sorted({min(common, key=lambda step: abs(step - target)) for target in wanted})


def _levels(comparison: Comparison) -> tuple[float, ...]:
    """The losses whose steps are asked for: the paper's, or those of the baseline on its way."""
    if not comparison.own:
        return FIGURE_2_LEVELS if comparison.size == "base" else FIGURE_2_LEVELS[:3]
    curve = comparison.baseline or comparison.own[0]
    places = [round(share * (len(curve.steps) - 1)) for share in BASELINE_SHARES]
    # A level is passed when a loss is below it: the baseline's own loss, rounded up, is passed by the baseline too.
    return tuple(sorted({round(curve.losses[place] + 0.005, 2) for place in places}, reverse=True))
