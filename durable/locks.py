"""One live run a folder: an advisory lock that dies with its holder and names it."""

import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from durable.errors import DurableError, with_hint
from durable.files import named_when_full

LOCK_NAME = ".symbert.lock"


@contextlib.contextmanager
def folder_lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold `folder` for the length of the block; the kernel frees the lock however the process ends.

    A shared hold keeps out those who want the folder alone, not other shared holds.

    Raises DurableError if the folder cannot be made, or, naming the holder, if another process holds it. The lock
    file stays; a holder may delete it with all else in the folder.
    """
    descriptor = _locked(folder, shared)
    try:
        os.ftruncate(descriptor, 0)
        with named_when_full(folder / LOCK_NAME):
            os.pwrite(descriptor, json.dumps(_holder()).encode(), 0)
        yield
        if not shared:  # others may still hold it, and one of them is named
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _locked(folder: Path, shared: bool) -> int:
    """A descriptor of the lock file, locked, and still the file of that name: its last holder may have deleted it."""
    while True:
        _make(folder)
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(folder, descriptor) from None
            if os.path.samestat(os.fstat(descriptor), (folder / LOCK_NAME).stat()):
                stack.pop_all()
                return descriptor


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise with_hint(
            DurableError(f"{folder} cannot be made: {error.strerror}; expected a folder to write to"),
            "give another --out",
        ) from None


def _holder() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _in_use(folder: Path, descriptor: int) -> DurableError:
    try:
        holder = json.loads(os.pread(descriptor, 1 << 16, 0))
        who = f"process {holder['pid']} on {holder['host']} (`{holder['command']}`, since {holder['since']})"
    except (ValueError, KeyError):
        who = "another process"
    return with_hint(DurableError(f"{folder} is in use by {who}"), "wait for it to end, or give another --out")
