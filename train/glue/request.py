"""What a grid of cells is asked for, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from durable.engines import LOCAL, Engine
from train.glue.protocol import Protocol
from train.glue.tasks import Task


@dataclass(frozen=True)
class Request:
    """What a run of the grid is asked for."""

    checkpoints: Sequence[Path]
    out: Path
    tasks: Sequence[Task]
    seeds: Sequence[int]
    protocol: Protocol = field(default_factory=Protocol)
    data_dir: Path | None = None
    """Folder of the official TSV files; None reads the hub."""
    predictions: bool = False
    """Also predict the test sets; a cell whose predictions are not there yet is trained again."""
    average: str = "nine"
    """Which of AVERAGES the table shows; cells do not depend on it."""
    retry_failed: bool = False
    """Whether cells that failed in an earlier run are tried again."""
    published: bool = False
    """Whether the table also shows what others published."""
    which: str = "last"
    """Which checkpoints of a run folder: last, all or log."""
    device: str | None = None
    """None is CUDA where there is a GPU, else the CPU."""
    workers: int | None = None
    """Cells at a time; None is one per core on a CPU, as far as memory goes, and one per GPU; of a cluster, all."""
    stack_seeds: bool | None = None
    """Whether the seeds of a task are trained together; None is where they are trained on a GPU."""
    engine: Engine = LOCAL
    slice: str | None = None
    """`K/N` trains slice K of N alone, `finish` writes the table of what slices have trained; see durable.slices."""


TableKind = TypeVar("TableKind")


@dataclass(frozen=True)
class Outcome(Generic[TableKind]):
    """What a run of the grid did."""

    trained: int
    found: int
    """Cells that an earlier run had finished."""
    left: int
    """Cells that were asked for and not reached."""
    failed: Mapping[str, str]
    """Cells that ended in an error, and the error."""
    table: TableKind
