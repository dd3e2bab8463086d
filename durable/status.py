"""How far a run is, from its folder alone: done, running, failed, rate and time left, whatever the engine.

A task is done when its product is there, so the answer holds for killed runs too. What is only known from notes,
running and failed tasks, is as good as the notes: a task that was not heard of for SECONDS_OF_SILENCE may be dead.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from durable.board import FAILED, RUN, RUNNING, SLICES, STATUS, read_note

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


def read_status(out: Path) -> Status | None:
    """The status of the run that is listed on a folder's board; None if nothing is listed."""
    board = out / STATUS
    run = read_note(board / RUN)
    if run is None:
        return None
    tasks: Mapping[str, Mapping[str, Any]] = run["tasks"]
    done = {key for key, task in tasks.items() if (out / task["product"]).is_file()}
    running = {key: found for key, found in _running(board, tasks).items() if key not in done}
    failed = {path.stem: read_note(path) for path in sorted((board / FAILED).glob("*.json"))}
    reasons = {
        tasks[key]["name"]: note["reason"]
        for key, note in failed.items()
        if note and key in tasks and key not in done and key not in running
    }
    total = sum(task["cost"] for task in tasks.values())
    finished = sum(tasks[key]["cost"] for key in done)
    at_hand = sum(tasks[key]["cost"] * found.share for key, found in running.items())
    rate, left = _pace(run, board, finished + at_hand, total)
    return Status(
        command=run["command"],
        engine=run["engine"],
        tasks=len(tasks),
        done=len(done),
        running=list(running.values()),
        failed=reasons,
        unit=run["unit"],
        share=(finished + at_hand) / total if total else 1.0,
        rate=rate if run["unit"] == "B" else rate and rate * len(tasks) / total,
        seconds_left=left,
    )


def _running(board: Path, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Running]:
    now = time.time()
    found = {}
    for path in sorted((board / RUNNING).glob("*.json")):
        note = read_note(path)
        if note is None or path.stem not in tasks:
            continue
        task, facts = tasks[path.stem], note["facts"]
        whole = facts.get("total") or task["cost"]
        share = min(facts.get("done", 0) / whole, 1.0) if whole else 0.0
        silent = max(now - note["heard"], 0.0)
        found[path.stem] = Running(task["name"], note["host"], note["pid"], share, now - note["since"], silent)
    return found


def _pace(run: Mapping[str, Any], board: Path, reached: float, total: float) -> tuple[float | None, float | None]:
    """Cost a second since the first worker of this run began, and the seconds that the rest takes at that rate."""
    begun = [note["since"] for note in map(read_note, (board / SLICES).glob("*.json")) if note]
    since = min(begun) if begun else run["since"]
    seconds, new = time.time() - since, reached - run["found"]
    if seconds <= 0 or new <= 0 or (run["engine"] == "slurm" and not begun):
        return None, None
    return new / seconds, (total - reached) * seconds / new
