"""A shard file as blocks of whole lines: hashed, decompressed, cut at newlines, in bounded memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, Self

import pyarrow as pa

from durable.errors import with_hint
from durable.remote import Place
from oscar_prep.damage import WHAT_TO_DO, damaged, input_size, not_decompressed, reading
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile

BLOCK_BYTES = 4 << 20
BLOCK_LINES = 1 << 16
# OSCAR's longest documents are a few MB; a longer line is more likely a broken file than a document.
LONGEST_LINE = 32 << 20
START_KEPT = 200
# How closely the position in a compressed file is known when only its start is read, and in which blocks.
START_STEP = 1024
START_BLOCK_BYTES = 1 << 20
ZSTANDARD = (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)))
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Block:
    """Whole lines without their newlines."""

    lines: list[bytes]
    first_line: int
    is_ended: bool = True
    """Whether a newline ends the last line; in a file that is read to its end, the last line may lack it."""


@dataclass(frozen=True)
class LongLine:
    """A line beyond the bound, skipped without being held."""

    line: int
    size: int
    start: bytes


class ShardReader:
    """Reads one input file block by block, and knows its size and hash when it has been read to the end.

    Compression is told by the first bytes, not by the name. Raises PrepareError, naming the file, if it is
    damaged, cut short, empty though compressed by its name, or differs from its checksum.
    """

    def __init__(self, file: InputFile, *, block_bytes: int = BLOCK_BYTES, longest_line: int = LONGEST_LINE) -> None:
        self._file = file
        self._block_bytes = block_bytes
        self._longest_line = longest_line

    def __enter__(self) -> Self:
        with reading(self._file.path):
            self._bytes = _HashedBytes(self._file.path.open("rb", buffering=0), self._file.checksum)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bytes.file.close()

    @property
    def bytes_read(self) -> int:
        """Bytes of the (compressed) file read so far."""
        return self._bytes.size

    def blocks(self) -> Iterator[Block | LongLine]:
        """The file's lines in order."""
        try:
            stream = _decompressed(self._bytes, self._file.path)
            yield from cut_lines(stream, self._block_bytes, self._longest_line)
        except OSError as error:
            raise not_decompressed(self._file.path, error) from None

    def finish(self) -> dict[str, int | str | None]:
        """Read whatever is left, compare the checksum; returns the file's size, sha256 and what vouches for it."""
        with reading(self._file.path):
            while self._bytes.read(1 << 20):
                pass
        algorithm, expected = self._file.checksum or (None, None)
        if algorithm is not None and self._bytes.digests[algorithm].hexdigest() != expected:
            raise damaged(self._file.path, f"its {algorithm} is not the one in the checksum file")
        return {
            "bytes": self._bytes.size,
            "sha256": self._bytes.digests["sha256"].hexdigest(),
            "checksum": algorithm,
        }


class _Bytes(Protocol):
    def peek(self, size: int) -> bytes: ...

    def read(self, size: int) -> bytes: ...


def _decompressed(raw: _Bytes, path: Place) -> "_Bytes | pa.CompressedInputStream":
    """What `raw` holds by its first bytes. Raises PrepareError if a name promises compression that is not there."""
    start = raw.peek(4)
    if start in ZSTANDARD:
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    if start.startswith(GZIP):
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip")
    if path.suffix in {".gz", ".zst", ".zstd"}:
        what = "begins like neither zstandard nor gzip" if start else "is empty"
        raise with_hint(PrepareError(f"{path} {what}, expected compressed JSON lines"), WHAT_TO_DO)
    return raw


def cut_lines(
    stream: "_Bytes | _UntilCut | pa.CompressedInputStream", block_bytes: int, longest: int
) -> Iterator[Block | LongLine]:
    """Cut a stream of bytes into blocks of whole lines; holds at most one block and one line of `longest` bytes."""
    line = 1
    pending: list[bytes] = []
    size = 0
    while chunk := stream.read(block_bytes):
        *lines, rest = chunk.split(b"\n")
        if not lines:
            size += len(rest)
            pending = [*pending, rest]
            if size > longest:
                pending = [b"".join(part[:START_KEPT] for part in pending)[:START_KEPT]]
            continue
        size += len(lines[0])
        lines[0] = b"".join([*pending, lines[0]])
        if size > longest:
            yield LongLine(line, size, lines[0][:START_KEPT])
            line += 1
            del lines[0]
        for start in range(0, len(lines), BLOCK_LINES):
            block = Block(lines[start : start + BLOCK_LINES], line)
            yield block
            line += len(block.lines)
        pending, size = ([rest], len(rest)) if rest else ([], 0)
    if size > longest:
        yield LongLine(line, size, pending[0][:START_KEPT])
    elif pending:
        yield Block([b"".join(pending)], line, is_ended=False)


class StartReader:
    """Reads the lines at the start of a file, at most `share` of its (compressed) bytes, hashing nothing.

    When `blocks` is exhausted, `content_bytes` estimates the decompressed size of the whole file: exact to a
    compressed block, for it is scaled up from where the last block that could be decompressed ends.
    """

    def __init__(self, path: Place, share: float) -> None:
        self._path = path
        self._share = share
        self.content_bytes = 0.0

    def blocks(self) -> Iterator[Block | LongLine]:
        """The whole lines of the start."""
        size = input_size(self._path)
        with reading(self._path):
            opened = self._path.open("rb", buffering=0)
        with opened as file:
            raw = _FirstBytes(file, int(size * self._share))
            stream = _UntilCut(_decompressed(raw, self._path), raw)
            try:
                for block in cut_lines(stream, START_BLOCK_BYTES, LONGEST_LINE):
                    if isinstance(block, LongLine) or block.is_ended:
                        yield block
            except OSError as error:
                raise not_decompressed(self._path, error) from None
        if stream.size:
            self.content_bytes = stream.size / stream.position * size


class _FirstBytes:
    """The first bytes of a file, handed out in small pieces so that a reader's position is known closely."""

    closed = False

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit
        self._ahead = b""
        self.position = 0

    def close(self) -> None:
        """The file is closed by who opened it."""

    def peek(self, size: int) -> bytes:
        self._ahead = self._file.read(size)  # what kind of file it is, however little of it may be read
        return self._ahead

    def read(self, size: int) -> bytes:
        if self._ahead:
            block, self._ahead = self._ahead[: self._left], b""
        else:
            block = self._file.read(min(size, self._left, START_STEP))
        self._left -= len(block)
        self.position += len(block)
        return block


class _UntilCut:
    """A decompressed stream that ends, instead of failing, where its compressed bytes are cut."""

    def __init__(self, stream: "_Bytes | pa.CompressedInputStream", raw: _FirstBytes) -> None:
        self._stream = stream
        self._raw = raw
        self.size = 0
        self.position = 0
        """Of the compressed bytes, where the last piece ended."""

    def read(self, size: int) -> bytes:
        pieces = []
        while size > 0:
            try:
                piece = self._stream.read(min(size, START_STEP))
            except OSError as error:
                if "Truncated" not in str(error):
                    raise
                piece = b""
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            self.size += len(piece)
            self.position = self._raw.position
        return b"".join(pieces)


class _HashedBytes:
    """A file that hashes what is read from it; enough of the file protocol for pyarrow."""

    def __init__(self, file: BinaryIO, checksum: tuple[str, str] | None) -> None:
        self.file = file
        self._ahead = b""
        self.size = 0
        self.digests = {name: hashlib.new(name) for name in {"sha256", checksum[0] if checksum else "sha256"}}

    @property
    def closed(self) -> bool:
        return self.file.closed

    def close(self) -> None:
        """pyarrow closes what it has read to the end; the rest of the file may still be wanted for its hash."""

    def peek(self, size: int) -> bytes:
        self._ahead = self.file.read(size)
        return self._ahead

    def read(self, size: int) -> bytes:
        block, self._ahead = self._ahead + (self.file.read(size - len(self._ahead)) or b""), b""
        for digest in self.digests.values():
            digest.update(block)
        self.size += len(block)
        return block
