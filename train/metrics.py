"""metrics.jsonl: one JSON object a line, in the order of the steps; the truth about a run."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from pydantic import Field

from durable.checked import Shape, checked, damaged
from durable.errors import with_hint
from durable.files import named_when_full, write_text
from train.errors import TrainError
from train.track import TensorBoard

NAME = "metrics.jsonl"


class _Row(Shape):
    """What every row says; the rest depends on its kind."""

    kind: str
    step: int = Field(ge=0)


class MetricsLog:
    """Appends rows to a run's metrics.jsonl; opening it removes what lies beyond the step the run resumes from.

    So that after a kill the file reads as if the run had never been interrupted: rows later than the checkpoint
    are computed again, and a line cut short by the kill goes as well. `mirror` is given every row of the file.
    """

    def __init__(self, run: Path, resumed_step: int | None, mirror: TensorBoard | None = None) -> None:
        self._path, self._mirror = run / NAME, mirror
        kept = [] if resumed_step is None else [row for row in read_metrics(run) if row["step"] <= resumed_step]
        write_text(self._path, "".join(map(_line, kept)), name="metrics")
        self._file = self._path.open("a", encoding="utf-8")
        if mirror is not None:
            mirror.open()
            mirror.write(kept)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows; they have reached the operating system, not yet the disk, when this returns."""
        rows = list(rows)
        with named_when_full(self._path):
            self._file.write("".join(map(_line, rows)))
            self._file.flush()
        if self._mirror is not None:
            self._mirror.write(rows)

    def sync(self) -> None:
        """Wait until everything written is on the disk: a checkpoint must never be ahead of its metrics."""
        with named_when_full(self._path):
            os.fsync(self._file.fileno())
        if self._mirror is not None:
            self._mirror.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with named_when_full(self._path):
            self._file.close()
        if self._mirror is not None:
            self._mirror.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run; none if it has no metrics yet. A last line without its newline is not a row yet.

    Raises TrainError, naming the line, if one is damaged.
    """
    try:
        content = (run / NAME).read_bytes()
    except FileNotFoundError:
        return []
    return [_row(f"{run / NAME}, line {number},", line) for number, line in enumerate(content.split(b"\n")[:-1], 1)]


def refuse_gaps(run: Path, step: int) -> None:
    """Raise TrainError, naming the first and the last, if steps up to `step` have no row, or 0 no evaluation."""
    rows = read_metrics(run)
    found = {row["step"] for row in rows if row["kind"] == "train"}
    found |= {row["step"] for row in rows if row["kind"] == "evaluation"} & {0}
    missing = sorted(set(range(step + 1)) - found)
    if missing:
        steps = f"step {missing[0]}" if len(missing) == 1 else f"{len(missing):,} steps, {missing[0]} to {missing[-1]}"
        raise with_hint(
            TrainError(f"{run / NAME} lacks {steps}, expected every step from 0 to the checkpoint's {step}"),
            "put the file back from a copy; or give another --out",
        )


def _row(where: str, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise damaged(where, str(error), TrainError) from None
    checked(_Row, row, where, TrainError)
    return cast("dict[str, Any]", row)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
