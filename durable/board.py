"""The notice board of an output folder: what is to be done there, what runs where, and what failed.

    OUT/.status/run.json            what the run is to do: every task with its cost and the file that shows it done
    OUT/.status/slices/*.json       a file for each slice of a run that is divided: who began it, and when
    OUT/.status/running/KEY.json    a task at hand: where, since when, how far; written anew every few seconds
    OUT/.status/failed/KEY.json     why a task failed when it was last tried

Workers on any machine write it, `symbert status` and the driver of a run on several machines read it. Nothing
depends on it but what people are shown: it may be deleted, and it goes when all is done.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from durable.files import named_when_full, partial_name, write_text

STATUS = ".status"
RUN, SLICES, RUNNING, FAILED = "run.json", "slices", "running", "failed"
SECONDS_BETWEEN_NOTES = 2.0
Facts = Mapping[str, Any]
Note = Callable[[Facts], None]


@dataclass(frozen=True)
class Entry:
    """A task as the board lists it."""

    name: str
    """What people call it: a file, a cell."""
    cost: float
    """In the unit of its run, for rates and the time left."""
    product: str
    """The file, relative to the folder, that is there when the task is done."""


@dataclass(frozen=True)
class Failure:
    """Why a task is not done."""

    reason: str
    deaths: int = 0
    """How many workers it has killed; 0 where it ended in an error."""
    kind: str = ""
    """Name of the error's class."""


@dataclass(frozen=True)
class Board:
    """The board of the folder `out`."""

    out: Path

    @property
    def folder(self) -> Path:
        return self.out / STATUS

    def begin(self, command: str, engine: str, unit: str, tasks: Mapping[str, Entry]) -> str:
        """Clear the board and list the tasks of a new run; returns the run's token, which no other run has.

        Call it while holding the folder's lock.
        """
        self.end()
        token = secrets.token_hex(8)
        found = sum(entry.cost for entry in tasks.values() if (self.out / entry.product).is_file())
        facts = {"run": token, "command": command, "engine": engine, "unit": unit, **_here(), "found": found}
        self._write(RUN, {**facts, "tasks": {key: vars(entry) for key, entry in tasks.items()}})
        return token

    def join(self, name: str) -> None:
        """Say that a slice of the run has begun."""
        self._write(f"{SLICES}/{name}.json", _here())

    def end(self) -> None:
        """Take everything down."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def token(self) -> str | None:
        """The token of the run that is listed."""
        run = self._read(RUN)
        return run.get("run") if run else None

    @contextlib.contextmanager
    def running(self, key: str) -> Iterator[Note]:
        """List a task as running for the length of the block; yields what takes its facts, done and total first of all.

        A note is written at once, then at most every SECONDS_BETWEEN_NOTES.
        """
        here, last = _here(), -SECONDS_BETWEEN_NOTES

        def note(facts: Facts) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_NOTES:
                last = now
                self._write(f"{RUNNING}/{key}.json", {**here, "heard": time.time(), "facts": dict(facts)})

        note({})
        last = -SECONDS_BETWEEN_NOTES
        try:
            yield note
        finally:
            self.stopped(key)

    def stopped(self, key: str) -> None:
        """List a task as running no longer."""
        self._path(RUNNING, key).unlink(missing_ok=True)

    def facts(self, key: str) -> Facts | None:
        """What a running task last said; None if it said nothing yet."""
        note = self._read(f"{RUNNING}/{key}.json")
        facts = note.get("facts") if note else None
        return facts if facts and isinstance(facts, dict) else None

    def fail(self, key: str, failure: Failure) -> None:
        """List a task as failed."""
        self._write(f"{FAILED}/{key}.json", {**asdict(failure), **_here()})

    def forgive(self, key: str) -> None:
        """A task that failed is tried again, or done."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.out}/{STATUS}/{FAILED}/{key}.json")  # four times as fast as a Path, for every task

    def failures(self) -> dict[str, Failure]:
        """The tasks that failed when they were last tried."""
        found = {}
        for path in sorted((self.folder / FAILED).glob("*.json")):
            content = self._read(f"{FAILED}/{path.name}")
            if content and "reason" in content and isinstance(deaths := content.get("deaths"), int):
                found[path.stem] = Failure(str(content["reason"]), deaths, str(content.get("kind", "")))
        return found

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.json"

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.folder / name
        if name == RUN:
            write_text(path, json.dumps(content), name="board")
            return
        # Not fsynced: a note that a power cut loses is no loss.
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_name(path)
        with named_when_full(path):
            partial.write_text(json.dumps(content), "utf-8")
            partial.replace(path)

    def _read(self, name: str) -> dict[str, Any] | None:
        return read_note(self.folder / name)


def read_note(path: Path) -> dict[str, Any] | None:
    """A file of a board; None if it is gone, which it may be at any moment, or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None  # some shared file systems show a file that is being replaced as empty
    return content if isinstance(content, dict) else None


def _here() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
