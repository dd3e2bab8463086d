"""How far a run is, from its folder alone: done, running, failed, rate and time left, whatever the engine.

A task is done when its product is there, so the answer holds for killed runs too. What is only known from notes,
running and failed tasks, is as good as the notes: a task that was not heard of for SECONDS_OF_SILENCE may be dead.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from durable.board import FAILED, RUN, RUNNING, SLICES, STATUS, read_note
from durable.checked import Shape, checked, fitting, read_json

SECONDS_OF_SILENCE = 120.0


@dataclass(frozen=True)
class Running:
    """A task at hand."""

    name: str
    host: str
    pid: int
    share: float
    """How much of it is done, from 0 to 1."""
    seconds: float
    """Since it was begun."""
    silent: float
    """Seconds since it was last heard of."""


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    command: str
    engine: str
    tasks: int
    done: int
    running: list[Running]
    failed: dict[str, str]
    """Reasons by the tasks' names."""
    unit: str
    share: float
    """How much of the whole is done, running tasks included, from 0 to 1."""
    rate: float | None
    """Of the run, in its unit a second; None before anything is done."""
    seconds_left: float | None

    @property
    def waiting(self) -> int:
        return self.tasks - self.done - len(self.running) - len(self.failed)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "waiting": self.waiting}


class _Task(Shape):
    name: str
    cost: float = Field(ge=0)
    product: str


class _Run(Shape):
    """The file that lists a run."""

    command: str
    engine: str
    unit: str
    since: float
    found: float
    tasks: dict[str, _Task]


class _Facts(Shape):
    total: float | None = Field(default=None, ge=0)
    done: float = Field(default=0.0, ge=0)


class _Note(Shape):
    """What a running task says of itself."""

    host: str
    pid: int
    since: float
    heard: float
    facts: _Facts


class _Slice(Shape):
    since: float


class _Failed(Shape):
    reason: str


def read_status(out: Path) -> Status | None:
    """The status of the run that is listed on a folder's board; None if nothing is listed.

    Notes that are damaged are passed over. Raises DurableError if the list of the tasks is.
    """
    board = out / STATUS
    run = _listed(board / RUN)
    if run is None:
        return None
    tasks = run.tasks
    done = {key for key, task in tasks.items() if (out / task.product).is_file()}
    running = {key: found for key, found in _running(board, tasks).items() if key not in done}
    failed = {path.stem: fitting(_Failed, read_note(path)) for path in sorted((board / FAILED).glob("*.json"))}
    reasons = {
        tasks[key].name: note.reason
        for key, note in failed.items()
        if note and key in tasks and key not in done and key not in running
    }
    total = sum(task.cost for task in tasks.values())
    finished = sum(tasks[key].cost for key in done)
    at_hand = sum(tasks[key].cost * found.share for key, found in running.items())
    rate, left = _pace(run, board, finished + at_hand, total)
    return Status(
        command=run.command,
        engine=run.engine,
        tasks=len(tasks),
        done=len(done),
        running=list(running.values()),
        failed=reasons,
        unit=run.unit,
        share=(finished + at_hand) / total if total else 1.0,
        rate=rate if run.unit == "B" else rate and rate * len(tasks) / total,
        seconds_left=left,
    )


def _listed(path: Path) -> _Run | None:
    try:
        if not path.stat().st_size:  # so some shared file systems show a file that is being replaced
            return None
        hint = f"delete {path.parent}: nothing depends on it but what is shown here"
        return checked(_Run, read_json(path, hint=hint), path, hint=hint)
    except FileNotFoundError:
        return None


def _running(board: Path, tasks: Mapping[str, _Task]) -> dict[str, Running]:
    now = time.time()
    found = {}
    for path in sorted((board / RUNNING).glob("*.json")):
        note = fitting(_Note, read_note(path))
        if note is None or path.stem not in tasks:
            continue
        task = tasks[path.stem]
        whole = note.facts.total or task.cost
        share = min(note.facts.done / whole, 1.0) if whole else 0.0
        silent = max(now - note.heard, 0.0)
        found[path.stem] = Running(task.name, note.host, note.pid, share, now - note.since, silent)
    return found


def _pace(run: _Run, board: Path, reached: float, total: float) -> tuple[float | None, float | None]:
    """Cost a second since the first worker of this run began, and the seconds that the rest takes at that rate."""
    notes = (fitting(_Slice, read_note(path)) for path in (board / SLICES).glob("*.json"))
    begun = [note.since for note in notes if note]
    since = min(begun) if begun else run.since
    seconds, new = time.time() - since, reached - run.found
    if seconds <= 0 or new <= 0 or (run.engine == "slurm" and not begun):
        return None, None
    return new / seconds, (total - reached) * seconds / new
