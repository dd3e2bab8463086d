"""Cells that ended in an error: kept by name and reason, and tried again only on request.

OUT/failed/<12 hex>/<task>-<seed>.json    identity and error; gone once the cell is finished
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable.files import write_json
from train.glue.cells import TF32, Cell, Data, read_record
from train.glue.names import names_of
from train.glue.protocol import FineTuning
from train.glue.shapes import AGAIN, FailedCell

FAILED = "failed"


def _path(cell: Cell, out: Path) -> Path:
    return out / FAILED / cell.subject.short / f"{cell.task.name}-{cell.seed}.json"


def _read(path: Path) -> dict[str, Any]:
    return read_record(path, FailedCell, AGAIN)


def known_failure(cell: Cell, out: Path, data: Data, protocol: FineTuning) -> str | None:
    """The error of this very cell in an earlier run, if it had one."""
    path = _path(cell, out)
    if not path.is_file():
        return None
    record = _read(path)
    if isinstance(settings := record["identity"].get("protocol"), dict):
        settings.setdefault(TF32, protocol.record()[TF32])
    return str(record["error"]) if record["identity"] == cell.identity(data, protocol) else None


def keep_failure(cell: Cell, out: Path, data: Data, protocol: FineTuning, error: str) -> None:
    """Remember that a cell failed."""
    write_json(_path(cell, out), {"identity": cell.identity(data, protocol), "error": error}, name="failure")


def forget_failure(cell: Cell, out: Path) -> None:
    """The cell is finished, or tried again."""
    _path(cell, out).unlink(missing_ok=True)


def failure_notes(out: Path, grid: Mapping[str, Any]) -> list[str]:
    """A sentence for each failed cell of a folder."""
    names = names_of(grid["checkpoints"])
    notes = []
    for path in sorted((out / FAILED).glob("*/*.json")):
        record = _read(path)
        name = names.get(record["identity"]["weights"], path.parent.name)
        notes.append(f"{name}: {path.stem} failed: {record['error']}")
    return notes
