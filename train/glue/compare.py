"""Two models of GLUE folders against each other: is a difference more than chance?

Seeds fix the head, the order and the dropout of a cell, so cells of the same seed are pairs. Differences are
second − first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from durable.checked import damaged
from durable.errors import with_hint
from durable.settings import difference
from train.analysis import Comparison, holm, paired, signed_rank, welch
from train.errors import TrainError
from train.glue.bootstrap import RESAMPLES, Predictions, bootstrap_interval
from train.glue.cells import read_cells, read_glue_grid, read_record, values_from_text
from train.glue.labels import read_labels
from train.glue.names import names_of
from train.glue.rescore import refuse_edited_cells
from train.glue.score import ModelScores, Summary, model_scores, summed
from train.glue.shapes import TableFile
from train.glue.table import Records, degenerate_of, noise_of
from train.glue.tasks import AVERAGES, NUMBERS, Task, task_of

AVERAGE = "glue"


@dataclass(frozen=True)
class Model:
    """A model of a GLUE folder, with all its cells."""

    name: str
    cells: Records
    grid: Mapping[str, Any]
    folder: Path
    average: str = "nine"
    """Which of AVERAGES the folder's table shows."""

    @property
    def noise(self) -> str:
        """What was done to the validation sentences that it was also scored on; empty for nothing."""
        return noise_of(self.grid["protocol"])


@dataclass(frozen=True)
class Difference:
    """One number of two models over the seeds that both have."""

    number: str
    first: Summary
    second: Summary
    paired: Comparison | None = None
    """Student's t-test of the pairs; None for fewer than two pairs or differences that are all equal."""
    signed_rank: Comparison | None = None
    """Wilcoxon's test of the pairs; None as for `paired`."""
    welch: Comparison | None = None
    """Welch's t-test, which does not use that they are pairs; None where neither model varies."""
    corrected: float | None = None
    """The paired p-value corrected for the number of tasks (Holm); None for the average."""
    interval: tuple[float, float] | None = None
    """95 % of the difference over resampled examples."""
    degenerate: tuple[int, ...] = ()
    """Seeds under which a model's run is degenerate; they are part of the above."""
    without: "Difference | None" = None
    """The same without those seeds; None if there are none, or nothing is left."""
    over: ModelScores | None = None
    """Of the average alone: what it holds, in the first model's scores."""

    @property
    def mean(self) -> float:
        return self.second.mean - self.first.mean


def find_model(place: str) -> Model:
    """A model by `FOLDER`, which then holds one alone, or `FOLDER:MODEL`, by name or first digits of its weights' hash.

    Raises TrainError if there is none, or more than one.
    """
    folder, wanted = (Path(place), "") if Path(place).is_dir() else _divided(place)
    grid = read_glue_grid(folder)
    names = names_of(grid["checkpoints"])
    fits = [
        weights
        for weights, name in names.items()
        if not wanted or wanted in (name, grid["checkpoints"][weights]["name"]) or weights.startswith(wanted)
    ]
    if len(fits) != 1:
        what = f"{len(fits)} models" if fits else "no model"
        called = f" called {wanted}" if wanted else ""
        raise with_hint(
            TrainError(f"{folder} holds {what}{called}, expected one"),
            f"write {folder}:MODEL with one of {', '.join(names.values())}",
        )
    refuse_edited_cells(folder)
    cells = {
        (cell["identity"]["task"], int(cell["identity"]["seed"])): cell
        for cell in read_cells(folder)
        if cell["identity"]["weights"] == fits[0]
    }
    return Model(names[fits[0]], cells, grid, folder, _average_of(folder))


def _average_of(folder: Path) -> str:
    """The average of the folder's table; that of the paper where it has none yet."""
    path = folder / "table.json"
    if not path.is_file():
        return "nine"
    again = "run `symbert glue` on the folder again: it writes the table anew"
    kind = read_record(path, TableFile, again)["average"]
    if kind not in AVERAGES:
        raise damaged(path, f"its average is {kind!r}, expected one of {', '.join(AVERAGES)}", TrainError, again)
    return str(kind)


def _divided(place: str) -> tuple[Path, str]:
    folder, _, wanted = place.rpartition(":")
    return (Path(folder), wanted) if folder else (Path(place), "")


def compare_models(
    first: Model, second: Model, *, resamples: int = RESAMPLES, average: str | None = None
) -> list[Difference]:
    """Every number that both models have on clean sentences, then the average, one of AVERAGES.

    By default that is the average of the folders' tables. Raises TrainError, with the difference, if protocol or data
    are not the same but for the noise, on which these scores do not depend; if nothing is shared; and if the tables
    show different averages where none is asked for.
    """
    changes = difference(_without_noise(first), _without_noise(second))
    for name in first.grid["tasks"].keys() & second.grid["tasks"].keys():
        tasks = (model.grid["tasks"][name] for model in (first, second))
        one, other = ({name: {key: task.get(key) for key in ("data", "settings")}} for task in tasks)
        changes += difference(one, other)
    if changes:
        raise TrainError(f"{first.folder} and {second.folder} cannot be compared: {'; '.join(changes)}")
    found = _compared(Side(first), Side(second), resamples, average)
    if not found:
        raise TrainError(f"{first.name} and {second.name} share no cell of the same task and seed")
    return found


def compare_noisy(
    first: Model, second: Model, *, resamples: int = RESAMPLES, average: str | None = None
) -> list[Difference]:
    """The same of two models that compare_models compares, on sentences with noise; empty if theirs is not the same."""
    if not first.noise or first.noise != second.noise:
        return []
    return _compared(Side(first, noisy=True), Side(second, noisy=True), resamples, average)


def _without_noise(model: Model) -> dict[str, Any]:
    return {key: value for key, value in model.grid["protocol"].items() if key not in ("noise", "noise_rate")}


@dataclass(frozen=True)
class Side:
    """A model on clean sentences, or on those with noise."""

    model: Model
    noisy: bool = False

    @property
    def records(self) -> Records:
        cells = self.model.cells
        return {key: cell["noise"] for key, cell in cells.items() if "noise" in cell} if self.noisy else cells

    @property
    def scores(self) -> ModelScores:
        return model_scores({key: record["scores"] for key, record in self.records.items()})

    @property
    def degenerate(self) -> dict[str, list[int]]:
        """Seeds by task."""
        flagged: dict[str, list[int]] = {}
        for task, seed in degenerate_of(self.records):
            flagged.setdefault(task, []).append(seed)
        return flagged

    def predictions(self, task: Task, seed: int) -> Predictions:
        texts = self.records[task.name, seed]["predictions"]
        return {split: values_from_text(task, text) for split, text in texts.items()}


def _compared(first: Side, second: Side, resamples: int, average: str | None) -> list[Difference]:
    one, other = first.model, second.model
    if average is None and one.average != other.average:
        error = f"{one.folder} averages {AVERAGES[one.average][1]}, {other.folder} {AVERAGES[other.average][1]}"
        raise with_hint(TrainError(f"{error}: say which is meant"), f"--average {one.average}")
    flags = first.degenerate, second.degenerate
    found = compare_scores(first.scores, second.scores, *flags, average=average or one.average)
    return [_with_interval(entry, first, second, resamples) for entry in found]


def compare_scores(
    first: ModelScores,
    second: ModelScores,
    first_degenerate: Mapping[str, Sequence[int]] | None = None,
    second_degenerate: Mapping[str, Sequence[int]] | None = None,
    *,
    average: str = "nine",
) -> list[Difference]:
    """Every number that both models have for a common seed, then the average over such numbers.

    The average, one of AVERAGES, takes the numbers and seeds that both models have. The mappings give, by task, the
    seeds whose run is degenerate.
    """
    flags = [first_degenerate or {}, second_degenerate or {}]
    found = []
    for number in [*NUMBERS, *(number for number in first.numbers if number not in NUMBERS)]:
        pair = _pair(first.numbers.get(number), second.numbers.get(number))
        if pair:
            flagged = {seed for model in flags for seed in model.get(task_of(number).name, ())}
            found.append(_difference(number, *pair, flagged))
    corrected = holm([entry.paired.p_value for entry in found if entry.paired])
    found = [replace(entry, corrected=corrected.pop(0) if entry.paired else None) for entry in found]
    whole = _average(found, average)
    return [*found, whole] if whole else found


def _pair(first: Summary | None, second: Summary | None) -> tuple[Summary, Summary] | None:
    if first is None or second is None:
        return None
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    return (first.only(seeds), second.only(seeds)) if seeds else None


def _difference(number: str, first: Summary, second: Summary, flagged: set[int]) -> Difference:
    bad = tuple(seed for seed in first.seeds if seed in flagged)
    rest = [seed for seed in first.seeds if seed not in flagged]
    return replace(
        _tested(Difference(number, first, second)),
        degenerate=bad,
        without=_difference(number, first.only(rest), second.only(rest), set()) if bad and rest else None,
    )


def _tested(entry: Difference) -> Difference:
    pairs = entry.second.values, entry.first.values
    # Where nothing varies beyond rounding, a test statistic is noise divided by noise.
    several = len(entry.first.seeds) > 1
    pairs_vary = several and np.ptp(np.subtract(*pairs)) > 1e-12
    models_vary = several and max(np.ptp(values) for values in pairs) > 1e-12
    return replace(
        entry,
        paired=paired(*pairs) if pairs_vary else None,
        signed_rank=signed_rank(*pairs) if pairs_vary else None,
        welch=welch(*pairs) if models_vary else None,
    )


def _average(entries: Sequence[Difference], kind: str) -> Difference | None:
    first = summed({entry.number: entry.first.by_seed for entry in entries}, kind)
    second = summed({entry.number: entry.second.by_seed for entry in entries}, kind)
    if first.average is None or second.average is None:
        return None
    held = {number for group in first.averaged for number in group}
    flagged = {seed for entry in entries if entry.number in held for seed in entry.degenerate}
    return replace(_difference(AVERAGE, first.average, second.average, flagged), over=first)


def _with_interval(entry: Difference, first: Side, second: Side, resamples: int) -> Difference:
    if entry.number == AVERAGE or not resamples:
        return entry
    task = task_of(entry.number)
    # Without labels of its own a folder's predictions were not looked at.
    labels, _ = (read_labels(side.model.folder, task) for side in (first, second))
    one, other = ([side.predictions(task, seed) for seed in entry.first.seeds] for side in (first, second))
    return replace(entry, interval=bootstrap_interval(task, entry.number, labels, one, other, resamples))
