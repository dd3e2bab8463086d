"""A Parquet file as batches of rows, with the interface of a shard of JSON lines."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from durable.errors import with_hint
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.layout import Layout
from oscar_prep.read import BLOCK_BYTES, damaged

SUFFIX = ".parquet"
READ_SIZE = 1 << 20


@dataclass(frozen=True)
class Rows:
    """Some rows of a file; the first has the number `first_line`, counted from 1."""

    records: pa.RecordBatch
    first_line: int


class ParquetReader:
    """Reads one Parquet file batch by batch, only the columns that are wanted.

    Raises PrepareError, naming the file, if it is damaged, differs from its checksum, or lacks the content.
    """

    def __init__(self, file: InputFile, layout: Layout, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._input = file
        self._layout = layout
        self._block_bytes = block_bytes
        self._size = file.path.stat().st_size
        self.bytes_read = 0
        """The file's size times the share of its rows read so far."""

    def __enter__(self) -> Self:
        try:
            path = self._input.path
            source = path if isinstance(path, Path) else path.open("rb")
            self._file = pq.ParquetFile(source, pre_buffer=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._damaged(error) from None
        try:
            self._check_schema(self._file.schema_arrow)
        except PrepareError:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[Rows]:
        """The file's rows in order."""
        line = 1
        for batch in self._batches():
            yield Rows(batch, line)
            line += batch.num_rows
            self.bytes_read = self._size * (line - 1) // self.rows

    def first(self, share: float) -> Iterator[Rows]:
        """The first `share` of the file's rows, rounded up."""
        left, line = math.ceil(self.rows * share), 1
        for batch in self._batches():
            yield Rows(batch.slice(0, left), line)
            left, line = left - batch.num_rows, line + batch.num_rows
            if left <= 0:
                return

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return int(self._file.metadata.num_rows)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        row_bytes = sum(group.total_byte_size for group in groups) // max(metadata.num_rows, 1)
        size = min(max(self._block_bytes // max(row_bytes, 1), 1), 1 << 16)
        wanted = {path for paths in self._layout.paths.values() for path in paths}
        try:
            yield from self._file.iter_batches(size, columns=sorted(wanted), use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._damaged(error) from None

    def finish(self) -> dict[str, int | str | None]:
        """Hash the file, compare the checksum; returns its size, sha256 and what vouches for it."""
        algorithm, expected = self._input.checksum or (None, None)
        digests = {name: hashlib.new(name) for name in {"sha256", algorithm or "sha256"}}
        with self._input.path.open("rb") as file:
            while block := file.read(READ_SIZE):
                for digest in digests.values():
                    digest.update(block)
        if algorithm is not None and digests[algorithm].hexdigest() != expected:
            raise self._damaged(f"its {algorithm} is not the one in the checksum file")
        return {"bytes": self._size, "sha256": digests["sha256"].hexdigest(), "checksum": algorithm}

    def _check_schema(self, schema: pa.Schema) -> None:
        try:
            self._layout.documents(pa.RecordBatch.from_pylist([], schema), pa.array([], pa.int64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise PrepareError(f"{self._input.path} has a column of another type than OSCAR's: {error}") from None
        if "content" not in self._layout.present(schema):
            raise with_hint(
                PrepareError(f"{self._input.path} has no column `{self._layout.content}`"),
                f"--content-field NAME; its columns are {', '.join(schema.names)}",
            )

    def _damaged(self, reason: object) -> PrepareError:
        return damaged(self._input.path, str(reason).splitlines()[0])
