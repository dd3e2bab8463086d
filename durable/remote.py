"""Files behind URLs: read in blocks, written whole or not at all, with the part of pathlib.Path that this takes.

Whatever goes wrong for a moment is tried again a bounded number of times (durable/stores.py), everything else is one
line that names the URL.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from durable.errors import DurableError, with_hint
from durable.stores import SCHEMES, ask, without_secrets

Result = TypeVar("Result")

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)

BLOCK_BYTES = 8 << 20
# Names of what a file system says of a file that are new when its content is.
VERSIONS = ("ETag", "etag", "generation", "blob_id", "created", "mtime")


@dataclass(frozen=True)
class RemoteStat:
    """What `stat` says of a file behind a URL."""

    st_size: int


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind a URL; the size is known where it comes from a listing.

    Every method raises DurableError, naming the URL, if the service refuses, does not answer or holds no such file.
    """

    url: str
    size: int | None = None

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.url.rpartition("/")[0])

    def resolve(self) -> "RemotePath":
        """The URL without what a listing said of it."""
        return RemotePath(self.url)

    def relative_to(self, folder: "RemotePath") -> str:
        """The name below a folder."""
        return self.url.removeprefix(f"{folder.url}/")

    def exists(self) -> bool:
        """Whether there is a file or a folder with a file in it."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self.size is not None or self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is a folder with a file in it."""
        return self.size is None and self._kind() == "directory"

    def stat(self) -> RemoteStat:
        """The file's size."""
        return RemoteStat(self.listed().size or 0)

    def listed(self) -> "RemotePath":
        """The file with its size."""
        return self if self.size is not None else replace(self, size=self.state()[0])

    def state(self) -> tuple[int, str | None]:
        """The size of the file as it is now, and what is new when its content is, if the service knows that."""
        entry = self._ask(lambda files: files.info(self.url))
        return int(entry["size"] or 0), next((str(entry[name]) for name in VERSIONS if entry.get(name)), None)

    def files(self) -> list["RemotePath"]:
        """Every file below a folder."""
        return self._from_listing(self._ask(lambda files: files.find(self.url, detail=True)).values())

    def iterdir(self) -> Iterator["RemotePath"]:
        """The files in a folder, not those in folders below it."""
        yield from self._from_listing(self._ask(lambda files: files.ls(self.url, detail=True)))

    def glob(self, pattern: str) -> list["RemotePath"]:
        """The files below a folder whose names fit a pattern."""
        found = self._ask(lambda files: files.glob(f"{self.url}/{pattern}", detail=True))
        return self._from_listing(found.values())

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """The file to read; a request for each block, and blocks small enough for a caller without a buffer."""
        assert mode == "rb", mode
        return io.BufferedReader(_RemoteReader(self), max(buffering, BLOCK_BYTES))

    def read_bytes(self) -> bytes:
        """The whole file."""
        content: bytes = self._ask(lambda files: files.cat_file(self.url))
        return content

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The whole file as text."""
        return self.read_bytes().decode(encoding, errors)

    def block(self, start: int, end: int) -> bytes:
        """The file's bytes from `start` to before `end`."""
        content: bytes = self._ask(lambda files: files.cat_file(self.url, start=start, end=end))
        return content

    def write_bytes(self, content: bytes) -> None:
        """Put `content` in the place of whatever is there."""
        self._ask(lambda files: files.pipe_file(self.url, content))

    def create(self, content: bytes) -> bool:
        """Put `content` there unless something is; returns whether it was put, also where two try it at once."""
        try:
            self._ask(lambda files: files.pipe_file(self.url, content, mode="create"), FileExistsError)
        except FileExistsError:
            return False
        return True

    def upload(self, path: Path) -> None:
        """Put a local file's content in the place of whatever is there: a reader sees the old or the new, whole."""
        self._ask(lambda files: files.put_file(str(path), self.url))

    def unlink(self) -> None:
        """Remove the file."""
        self._ask(lambda files: files.rm_file(self.url))

    def _kind(self) -> str | None:
        try:
            kind: str = self._ask(lambda files: files.info(self.url), FileNotFoundError)["type"]
        except FileNotFoundError:
            return None
        return kind

    def _from_listing(self, entries: Any) -> list["RemotePath"]:
        files = [entry for entry in entries if entry["type"] == "file"]
        return [RemotePath(f"{self.scheme}://{entry['name'].lstrip('/')}", int(entry["size"] or 0)) for entry in files]

    def _ask(self, action: Callable[[Any], Result], *wanted: type[Exception]) -> Result:
        return ask(self.url, action, wanted)


Place = Path | RemotePath
"""Where a file or folder is: here, or behind a URL."""


def place(text: str | Path) -> Place:
    """What a path or a URL leads to. Raises DurableError for a scheme that is not known, or a URL with a password."""
    match = URL.fullmatch(str(text))
    if match is None:
        return Path(text)
    scheme, rest = match[1].lower(), match[2]
    if "@" in rest.partition("/")[0] or "?" in rest:
        raise with_hint(
            DurableError(f"{scheme}://{without_secrets(rest)} holds a user, a password or a signature"),
            "credentials come from the environment, such as AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY: what stands on a command line is seen by others and kept in records",
        )
    if scheme == "file":
        return Path(rest)
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in (*SCHEMES, "file") if name != "memory")
        raise with_hint(DurableError(f"{text}: {scheme}:// is not known, expected {known}"), "or copy the files here")
    if not rest.strip("/"):
        raise with_hint(DurableError(f"{text} names no bucket"), f"{scheme}://bucket/folder")
    return RemotePath(f"{scheme}://{rest.strip('/')}")


class _RemoteReader(io.RawIOBase):
    """The bytes of a file, a request for every read; at the end it must still be the file that it was."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._state = path.state()
        self._size = self._state[0]
        self._position = 0
        self._checked = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if self._position >= end:
            self._check()
            return 0
        block = self._path.block(self._position, end)
        if len(block) != end - self._position:
            raise self._changed()
        buffer[: len(block)] = block
        self._position = end
        return len(block)

    def _check(self) -> None:
        if not self._checked:
            if self._path.state() != self._state:
                raise self._changed()
            self._checked = True

    def _changed(self) -> DurableError:
        return with_hint(
            DurableError(f"{self._path} has changed while it was read"),
            "give the same command when nobody writes to it",
        )
