"""Files and folders that are whole or absent, whatever kills the process or fills the disk.

The protocol is the same for every product: write under a temporary name, flush, fsync, let the caller check
what was written, rename, fsync the folder. A reader never sees a half-written file, and a failed write leaves
nothing behind but a temporary name that the next run sweeps away.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from durable.failpoints import failpoint
from durable.remote import Place

PARTIAL = ".partial-"
READ_SIZE = 1 << 20
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a write that finds the disk or the quota full, or the file as large as it may become."""
ERROR_NUMBER = re.compile(r"(?:os error|Errno) (\d+)")
"""How a message quotes the number: of libraries in Rust, such as safetensors, and of shutil's for a whole folder."""


def partial_name(path: Path) -> Path:
    """A temporary sibling of `path`: hidden, unique to this attempt, known to `sweep_partials`."""
    return path.with_name(f".{path.name}{PARTIAL}{secrets.token_hex(4)}")


def is_hidden(name: PurePath) -> bool:
    """Whether a name below a folder, or a folder on the way to it, begins with a dot."""
    return any(part.startswith(".") for part in name.parts)


def file_above(path: Path) -> Path | None:
    """The file that stands where a folder above `path` is wanted; None if nothing stands in its way."""
    return next((above for above in path.parents if above.is_file()), None)


@contextlib.contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Turn any error of the block that says that there is no room into an OSError that names what was written.

    That is `path`, unless the error knows better: a write names nothing, a copy its source and then its target, and
    libraries in Rust raise an error of their own.
    """
    try:
        yield
    except Exception as error:
        number = _no_room(error)
        if number is None:
            raise
        source, target = getattr(error, "filename", None), getattr(error, "filename2", None)
        name = str(target or source or path)
        raise OSError(number, os.strerror(number), str(path) if PARTIAL in name else name) from error


def _no_room(error: Exception) -> int | None:
    number = error.errno if isinstance(error, OSError) else None
    if number is None and not isinstance(error, ValueError) and (quoted := ERROR_NUMBER.search(str(error))):
        number = int(quoted[1])
    return number if number in NO_ROOM else None


class _NamedFile(io.FileIO):
    """A new file at `partial`; `path` is what a write names where there is no room."""

    def __init__(self, partial: Path, path: Path) -> None:
        super().__init__(partial, "x")
        self._path = path

    def write(self, content: Any) -> int:
        with named_when_full(self._path):
            return super().write(content)


@contextlib.contextmanager
def whole_file(path: Path, *, check: Callable[[Path], None] | None = None, name: str = "file") -> Iterator[BinaryIO]:
    """Yield a binary file that appears at `path` only if the block, and then `check`, raise nothing.

    `check` is called with the temporary path after fsync and may raise. `name` prefixes the failpoints
    `<name>.before-rename` and `<name>.after-rename`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        with io.BufferedWriter(_NamedFile(partial, path)) as file:
            yield file
            with named_when_full(path):
                file.flush()
                os.fsync(file.fileno())
        if check is not None:
            check(partial)
        with named_when_full(path):
            failpoint(f"{name}.before-rename")
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    failpoint(f"{name}.after-rename")


@contextlib.contextmanager
def whole_folder(path: Path, *, first_stays: bool = False, name: str = "folder") -> Iterator[Path]:
    """Yield a temporary folder that becomes `path`, replacing any older one, only if the block raises nothing.

    Every file in it is fsynced before the rename. A folder cannot replace a non-empty one in a single step, so
    an older one is renamed aside first: between the two steps `path` is absent, never half-written. With
    `first_stays` a folder that is there by then is kept and the new one dropped: what several processes may make at
    once, all alike.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    partial.mkdir()
    mode = stat.S_IMODE(partial.stat().st_mode) & 0o666  # as the umask says; safetensors makes its files 0600
    try:
        with named_when_full(path):
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    file.chmod(mode)
                fsync_folder(file)
            fsync_folder(partial)
            failpoint(f"{name}.before-rename")
        if first_stays:
            _rename_unless_there(partial, path)
        elif path.exists():
            aside = partial_name(path)
            path.rename(aside)
            partial.rename(path)
            shutil.rmtree(aside)
        else:
            partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(path.parent)
    failpoint(f"{name}.after-rename")


def _rename_unless_there(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(partial)


def write_bytes(path: Path, content: bytes, *, name: str = "file") -> None:
    """Write `content` to `path`, whole or not at all."""
    with whole_file(path, name=name) as file:
        file.write(content)


def write_text(path: Path, content: str, *, name: str = "file") -> None:
    """Write `content` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, content.encode(), name=name)


def write_json(path: Path, content: Any, *, name: str = "file") -> None:
    """Write `content` as indented JSON with a final newline; NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", name=name)


def file_sha256(path: Place) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def fsync_folder(path: Path) -> None:
    """Make the entries of a folder (or the bytes of a file) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path) -> list[Path]:
    """Delete what killed attempts left anywhere below `folder`; call it only while holding the folder's lock."""
    left = [path for path in folder.rglob(f".*{PARTIAL}*") if PARTIAL not in str(path.parent.relative_to(folder))]
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return left
