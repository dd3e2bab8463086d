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
from oscar_prep.damage import damaged, input_size, reading, unreadable
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.layout import NUMBER, TEXT, TEXTS, Layout
from oscar_prep.read import BLOCK_BYTES

SUFFIX = ".parquet"
READ_SIZE = 1 << 20
# Rows are decoded so few at a time since any of them may be as long as the longest line; 3 µs a column for each batch.
ROWS_AT_ONCE = 8
BLOCK_ROWS = 1 << 16
# What pyarrow raises for bytes that are not what they were: a name that is not UTF-8, an encoding that there is not.
UNREADABLE = (pa.ArrowException, ValueError, OSError)


@dataclass(frozen=True)
class Rows:
    """Some rows of a file; the first has the number `first_line`, counted from 1."""

    records: pa.Table
    first_line: int


class ParquetReader:
    """Reads one Parquet file in blocks of rows whose text is bounded, only the columns that are wanted.

    Beside a block Arrow holds one page of each column, 1 MB in most files. But pyarrow's own writer looks at a page's
    size only after every 1,024 values, so a page may hold many long texts, and memory with it.

    Raises PrepareError, naming the file, if it is damaged, differs from its checksum, or lacks the content.
    """

    def __init__(self, file: InputFile, layout: Layout, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._input = file
        self._layout = layout
        self._block_bytes = block_bytes
        self._size = input_size(file.path)
        self.bytes_read = 0
        """The file's size times the share of its rows read so far."""

    def __enter__(self) -> Self:
        try:
            path = self._input.path
            source = path if isinstance(path, Path) else path.open("rb")
            self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_SIZE)
            schema = self._file.schema_arrow
        except UNREADABLE as error:
            raise self._damaged(error) from None
        try:
            self._check_schema(schema)
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
        if line - 1 != self.rows:
            raise self._damaged(f"it holds {line - 1:,} rows and says that it holds {self.rows:,}")

    def first(self, share: float) -> Iterator[Rows]:
        """The first `share` of the file's rows, rounded up."""
        left = math.ceil(self.rows * share)
        for block in self.blocks():
            yield Rows(block.records.slice(0, left), block.first_line)
            left -= block.records.num_rows
            if left <= 0:
                return

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return int(self._file.metadata.num_rows)

    def _batches(self) -> Iterator[pa.Table]:
        waiting: list[pa.RecordBatch] = []
        size = 0
        try:
            for batch in self._small_batches():
                is_large = batch.nbytes > self._block_bytes
                for part in [batch.slice(row, 1) for row in range(batch.num_rows)] if is_large else [batch]:
                    waiting.append(part)
                    size += part.nbytes
                    if size >= self._block_bytes or len(waiting) * ROWS_AT_ONCE >= BLOCK_ROWS:
                        yield pa.Table.from_batches(waiting)
                        waiting, size = [], 0
        except UNREADABLE as error:
            raise self._damaged(error) from None
        if waiting:
            yield pa.Table.from_batches(waiting)

    def _small_batches(self) -> Iterator[pa.RecordBatch]:
        """ROWS_AT_ONCE rows at a time, text as text."""
        metadata, rows = self._file.metadata, ROWS_AT_ONCE
        if any("dictionary<" in str(column.type) for column in self._file.schema_arrow):
            # With every batch comes the dictionary of all that was read before: as few batches as the average allows.
            size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
            rows = max(self._block_bytes * metadata.num_rows // max(size, 1), rows)
        columns = sorted(self._layout.types)
        for batch in self._file.iter_batches(min(rows, BLOCK_ROWS), columns=columns, use_threads=False):
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                part = batch.slice(start, ROWS_AT_ONCE)
                plain = [
                    column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
                    for column in part.columns
                ]
                yield pa.RecordBatch.from_arrays(plain, part.schema.names)

    def finish(self) -> dict[str, int | str | None]:
        """Hash the file, compare the checksum; returns its size, sha256 and what vouches for it."""
        algorithm, expected = self._input.checksum or (None, None)
        digests = {name: hashlib.new(name) for name in {"sha256", algorithm or "sha256"}}
        with reading(self._input.path), self._input.path.open("rb") as file:
            while block := file.read(READ_SIZE):
                for digest in digests.values():
                    digest.update(block)
        if algorithm is not None and digests[algorithm].hexdigest() != expected:
            raise self._damaged(f"its {algorithm} is not the one in the checksum file")
        return {"bytes": self._size, "sha256": digests["sha256"].hexdigest(), "checksum": algorithm}

    def _check_schema(self, schema: pa.Schema) -> None:
        for field, wanted in self._layout.types.items():
            problem = _problem(pa.struct(list(schema)), field, wanted, is_required=field == self._layout.content)
            if problem:
                raise with_hint(
                    PrepareError(f"{self._input.path}: {problem}"),
                    f"--content-field NAME and --url-field NAME; its columns are {', '.join(schema.names)}",
                )

    def _damaged(self, reason: object) -> PrepareError:
        if isinstance(reason, OSError) and reason.errno is not None:
            return unreadable(self._input.path, reason.errno)
        return damaged(self._input.path, str(reason).splitlines()[0])


def _problem(found: pa.DataType, field: str, wanted: pa.DataType, *, is_required: bool) -> str | None:
    """What keeps a field of a struct from being read; None if nothing does."""
    names = field.split(".")
    for depth, name in enumerate(names):
        if not pa.types.is_struct(found):
            return f"the column `{'.'.join(names[:depth])}` holds {found}, expected a struct with `{name}`"
        indices = found.get_all_field_indices(name)
        if len(indices) > 1:
            return f"{len(indices)} columns are called `{'.'.join(names[: depth + 1])}`, expected one"
        if not indices:
            return f"it has no column `{field}`" if is_required else None
        found = found.field(indices[0]).type
    return None if _fits(found, wanted) else f"the column `{field}` holds {found}, expected {wanted}"


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of a type are what msgspec takes for the wanted one, but for nulls."""
    if pa.types.is_dictionary(found):
        return _fits(found.value_type, wanted)
    if pa.types.is_null(found):
        return True
    if wanted == NUMBER:
        return bool(pa.types.is_floating(found) or pa.types.is_integer(found))
    if wanted == TEXTS:
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return any(is_list(found) for is_list in lists) and _fits(found.value_type, TEXT)
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))
