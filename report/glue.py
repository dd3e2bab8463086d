"""The GLUE section: the layout of Table 3 with intervals, a dot a seed, and the differences with their tests."""

from collections.abc import Sequence

from report.document import Block, Charts, Column, DotChart, Dots, Paragraph, Section, Table, Value, count
from report.models import SCORE, Model
from report.published import SOURCE
from report.significance import difference_tables, unknown_baseline
from train.analysis import interval
from train.glue.table import missing_notes
from train.glue.tasks import NUMBERS, heading


def glue_section(own: Sequence[Model], published: Sequence[Model]) -> Section:
    """The result table, one's own first; differences to the baseline with their tests."""
    blocks: list[Block] = [
        Paragraph(
            "The GLUE score of a seed is the mean of nine numbers, in per cent: (accuracy + F1)/2 for MRPC and QQP, "
            "Matthews' correlation for CoLA, (Pearson + Spearman)/2 for STS-B, accuracy for the rest, MNLI's two "
            "validation sets apart, WNLI left out. Beside the mean stand the sample standard deviation over the seeds "
            "and Student's 95 % interval. Fine-tuning seeds are not pre-training seeds: the intervals hold for these "
            "weights, not for the operator."
        )
    ]
    parts = [("glue", "GLUE", own), ("glue-published", f"GLUE as published, {SOURCE}, Table 3", published)]
    charts = [_dots(name, caption, models) for name, caption, models in parts if any(m.scores.average for m in models)]
    if charts:
        blocks.append(Charts(charts))
    for name, caption, models in parts:
        if models:
            blocks += [_scores(name, caption, models), *difference_tables(name, caption, models)]
    if unknown := unknown_baseline(own):
        blocks.append(Paragraph(unknown))
    return Section("glue", "GLUE", blocks)


def _dots(name: str, caption: str, models: Sequence[Model]) -> DotChart:
    rows, told = [], []
    for model in models:
        average = model.scores.average
        if average is not None:
            bounds = interval(average.values)
            scaled = (100 * bounds[0], 100 * bounds[1]) if bounds else None
            rows.append(
                Dots(model.label, model.operator, [100 * v for v in average.values], 100 * average.mean, scaled)
            )
            told.append(f"{model.label} {SCORE(average.mean)}")
    description = f"Dot chart of the GLUE score of every seed, with means and 95 % intervals. {'; '.join(told)}."
    return DotChart(
        name, f"{caption}: one dot a seed, the mean, its 95 % interval", description, "GLUE score (%)", rows
    )


def _scores(name: str, caption: str, models: Sequence[Model]) -> Table:
    extra = sorted({number for model in models for number in model.scores.numbers} - set(NUMBERS))
    numbers = [*NUMBERS, *extra]
    columns = [
        Column("model", "model"),
        Column("glue", "GLUE", SCORE),
        Column("glue_std", "std", SCORE),
        Column("low", "95 % from", SCORE),
        Column("high", "to", SCORE),
        Column("seeds", "seeds", count),
        *(Column(number, heading(number), SCORE) for number in numbers),
    ]
    rows: list[list[Value]] = []
    for model in models:
        average = model.scores.average
        low, high = (interval(average.values) if average else None) or (None, None)
        means = [model.scores.numbers[n].mean if n in model.scores.numbers else None for n in numbers]
        head = (average.mean, average.standard_deviation) if average else (None, None)
        rows.append([model.label, *head, low, high, len(average.seeds) if average else 0, *means])
    notes = missing_notes((model.label, model.scores) for model in models)
    return Table(name, caption, columns, rows, [f"{note}." for note in notes])
