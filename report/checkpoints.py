"""GLUE over checkpoints: the layout of Figure 3, with the line at 95 % of the best final score.

That score is a model's: the mean over its pre-training seeds where it has several runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.comparison import operator_rank
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
)
from report.models import CLEAN, SCORE, Model
from report.published import SOURCE, Published
from train.analysis import crossing
from train.glue.curve import Point, best_final, comparable
from train.glue.score import ModelScores

SHARE_OF_FINAL = 0.95


def checkpoints_section(own: Sequence[Model], published: Published | None) -> Section | None:
    """GLUE over checkpoints, with the line at 95 % of the best final score; None without two checkpoints of a run."""
    runs: dict[str, list[Point]] = {}
    for model in own:
        if model.step is not None and model.group == CLEAN:
            runs.setdefault(model.run, []).append(Point(model.step, model.scores))
    operators = {model.run: model.operator for model in own}
    settings = {model.run: model.settings for model in own}
    found, left_out = comparable(runs)
    paths = [
        _Path(run, operators[run], {point.step: point.scores for point in points}, settings[run])
        for run, points in found.items()
    ]
    blocks: list[Block] = _checkpoint_blocks("checkpoints", "GLUE by checkpoint", paths) if paths else []
    blocks += [Paragraph(f"GLUE by checkpoint: {note}.") for note in left_out]
    if published and published.checkpoints:
        figure_3 = [_Path(f"{size}, {operator}", operator, dict(by_step))
                    for (size, operator), by_step in published.checkpoints.items()]  # fmt: skip
        figure_3.sort(key=lambda path: operator_rank(path.operator))
        caption = f"GLUE by checkpoint as published, {SOURCE}, Figure 3"
        blocks += _checkpoint_blocks("checkpoints-published", caption, figure_3)
    return Section("checkpoints", "GLUE over checkpoints", blocks) if blocks else None


@dataclass(frozen=True)
class _Path:
    """The GLUE score of one model on its way through pre-training."""

    label: str
    operator: str
    by_step: Mapping[int, ModelScores]
    settings: str = ""
    """Equal for runs that differ in their pre-training seed alone."""

    @property
    def steps(self) -> list[int]:
        return sorted(step for step, scores in self.by_step.items() if scores.average is not None)

    @property
    def scores(self) -> list[float]:
        return [average.mean for step in self.steps if (average := self.by_step[step].average) is not None]

    @property
    def failed(self) -> list[int]:
        """Steps whose fine-tuning on CoLA failed: a Matthews' correlation of exactly 0, before the last step."""
        return [
            step
            for step in self.steps[1:-1]
            if (cola := self.by_step[step].numbers.get("cola")) is not None and cola.mean == 0.0
        ]

    def repaired(self) -> list[float]:
        """The scores with a failed CoLA replaced by interpolation in steps between its neighbours."""
        steps, scores = self.steps, self.scores
        cola = {step: self.by_step[step].numbers["cola"].mean for step in steps} if self.failed else {}
        for step in self.failed:
            place = steps.index(step)
            before, after = steps[place - 1], steps[place + 1]
            share = (step - before) / (after - before)
            mended = cola[before] + share * (cola[after] - cola[before])
            scores[place] += mended / len(self.by_step[step].averaged)
        return scores


def _checkpoint_blocks(name: str, caption: str, paths: Sequence[_Path]) -> list[Block]:
    paths = [path for path in paths if path.steps]
    best = best_final((path.settings or path.label, path.scores[-1]) for path in paths)
    level = SHARE_OF_FINAL * best
    series = [Series(p.label, p.operator, p.steps, [100 * score for score in p.scores]) for p in paths]
    crossings = {path.label: crossing(path.steps, path.scores, level) for path in paths}
    marks = [Mark(at, 100 * level, path.operator) for path in paths if (at := crossings[path.label]) is not None]
    told = "; ".join(
        f"{path.label} ends at {SCORE(path.scores[-1])} and passes the line at "
        + (f"step {at:,.0f}" if (at := crossings[path.label]) is not None else "no measured step")
        for path in paths
    )
    line = f"{100 * SHARE_OF_FINAL:.0f} % of the best final score"
    chart = LineChart(
        name, caption, f"Line chart of the GLUE score by pre-training step, with a line at {SCORE(level)}. {told}.",
        "step", "GLUE score (%)", series, [Level(100 * level, line)], marks,
    )  # fmt: skip
    return [Charts([chart]), _checkpoint_table(name, caption, paths, level)]


def _checkpoint_table(name: str, caption: str, paths: Sequence[_Path], level: float) -> Table:
    steps = sorted({step for path in paths for step in path.steps})
    columns = [
        Column("model", "model"),
        Column("crossing", f"passes {SCORE(level)} at", count),
        Column("crossing_repaired", "without failed runs", count),
        *(Column(f"step_{step}", f"{step:,}", SCORE) for step in steps),
    ]
    rows: list[list[Value]] = []
    known = [path.settings for path in paths if path.settings]
    of_several = ", a mean over pre-training seeds where a model has several" if len(set(known)) < len(known) else ""
    notes = [
        f"The line is {100 * SHARE_OF_FINAL:.0f} % of the highest final score, {SCORE(level)}{of_several}. A model "
        "passes it where its score, interpolated linearly between checkpoints, first reaches it."
    ]
    for path in paths:
        repaired = crossing(path.steps, path.repaired(), level) if path.failed else None
        by_step = dict(zip(path.steps, path.scores, strict=True))
        at = crossing(path.steps, path.scores, level)
        rows.append([path.label, at, repaired, *(by_step.get(step) for step in steps)])
        notes += [
            f"{path.label}, step {step:,}: CoLA's Matthews correlation is 0, a failed fine-tuning; “without failed "
            "runs” interpolates CoLA between the neighbouring checkpoints."
            for step in path.failed
        ]
    return Table(name, caption, columns, rows, notes)
