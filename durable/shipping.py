"""Files that travel to the machines of a Ray cluster, for want of a file system that all of them share.

Each machine writes them once, into a folder of the run below its folder for temporary files, where its workers read
them (and map them into memory) together. The folder goes when the run ends; one of a driver that was killed, with
the next run that ships files.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.errors import DurableError
from durable.files import write_bytes
from durable.locks import folder_lock

PREFIX = "symbert-shipped-"
SECONDS_TO_FORGET = 10.0
_held = contextlib.ExitStack()
"""What this process holds until it ends."""


@dataclass(frozen=True)
class Shipment:
    """The files of one run: where they lie here, and Ray's references to their content."""

    run: str
    files: tuple[tuple[Path, Any], ...]

    def unpack(self, ray: Any) -> dict[Path, Path]:
        """Where each file lies on this machine; the first worker there writes them. Held until this process ends."""
        folder = _folder(self.run)
        _sweep(folder)
        _hold(folder)
        places = {path: folder / str(number) / path.name for number, (path, _) in enumerate(self.files)}
        with (folder / "unpacking").open("wb") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            for path, reference in self.files:
                if not places[path].exists():
                    places[path].parent.mkdir(exist_ok=True)
                    write_bytes(places[path], ray.get(reference))
        return places

    def forget(self, ray: Any) -> None:
        """Remove the files from every machine that still answers."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remove = ray.remote(num_cpus=0, max_retries=0)(_remove)
        references = [
            remove.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                self.run
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        ray.wait(references, num_returns=len(references), timeout=SECONDS_TO_FORGET)


def ship(ray: Any, run: str, paths: Sequence[Path]) -> Shipment | None:
    """Put the content of these files where all machines of the cluster can fetch it; None if there are none."""
    if not paths:
        return None
    return Shipment(run, tuple((path, ray.put(path.read_bytes())) for path in paths))


def _folder(run: str) -> Path:
    return Path(tempfile.gettempdir()) / f"{PREFIX}{os.getuid()}-{run}"


def _hold(folder: Path) -> None:
    ends = time.monotonic() + SECONDS_TO_FORGET
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    while True:
        try:
            _held.enter_context(folder_lock(folder, shared=True))
        except DurableError:  # another run's worker holds it alone, and lets go when it sees that it is in use
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return


def _sweep(ours: Path) -> None:
    """Remove what runs have left that nobody holds any more."""
    for folder in ours.parent.glob(f"{PREFIX}{os.getuid()}-*"):
        # Anybody may make a folder of that name, with a lock that leads elsewhere.
        if folder != ours and not folder.is_symlink() and folder.lstat().st_uid == os.getuid():
            with contextlib.suppress(DurableError, OSError), folder_lock(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _remove(run: str) -> None:
    shutil.rmtree(_folder(run), ignore_errors=True)
