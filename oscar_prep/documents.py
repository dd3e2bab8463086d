"""documents/*.parquet: one row for every document, kept or dropped, with all that its fate rests on but its text.

`failed` holds every rule that the document fails, `reason` the first (null: kept). `first_sample` is the row of
the unit's shard of `split` in which the document begins; it is the shard's number of rows or more if the document
begins in the tail or in the surplus. Lines that are no documents are in quarantine/, not here.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from durable.files import whole_file
from oscar_prep.errors import PrepareError
from oscar_prep.shards import FileRecord, file_record

GROUP_ROWS = 65_536
NAMES = pa.dictionary(pa.int8(), pa.string())
SCHEMA = pa.schema([
    ("file", NAMES), ("line", pa.int64()), ("record_id", pa.string()), ("url", pa.string()),
    ("reason", NAMES), ("failed", pa.list_(pa.string())),
    ("harmful_pp", pa.float64()), ("quality_warnings", pa.list_(pa.string())), ("categories", pa.list_(pa.string())),
    ("language", pa.string()), ("language_probability", pa.float64()),
    ("bytes", pa.int64()), ("characters", pa.int64()), ("tokens", pa.int64()),
    ("split", NAMES), ("first_sample", pa.int64()),
])  # fmt: skip


class DocumentsWriter:
    """Collects rows and writes them in groups of GROUP_ROWS; `record` is there when the file is committed."""

    record: FileRecord

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.RecordBatch] = []
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows (schema SCHEMA)."""
        self._waiting.append(batch)
        self.rows += batch.num_rows
        if sum(waiting.num_rows for waiting in self._waiting) >= GROUP_ROWS:
            table = pa.Table.from_batches(self._waiting, SCHEMA)
            full = table.num_rows // GROUP_ROWS * GROUP_ROWS
            self._writer.write_table(table.slice(0, full).unify_dictionaries(), row_group_size=GROUP_ROWS)
            self._waiting = table.slice(full).to_batches()

    def close(self) -> None:
        """Write what is waiting and the footer."""
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, SCHEMA).unify_dictionaries()
            self._writer.write_table(table, row_group_size=GROUP_ROWS)
        self._writer.close()

    def abandon(self) -> None:
        """Keep pyarrow from writing a footer, when the writer is collected, to a file that is closed by then."""
        self._writer.is_open = False


@contextlib.contextmanager
def documents_writer(corpus: Path, name: str) -> Iterator[DocumentsWriter]:
    """Yield a writer for `corpus/name`; the file appears whole, after it was opened again and its rows counted."""
    writer: DocumentsWriter

    def check(partial: Path) -> None:
        rows = pq.read_metadata(partial).num_rows
        if rows != writer.rows:
            raise PrepareError(f"{corpus / name}: wrote {writer.rows} rows and read {rows} back")
        writer.record = file_record(partial, name, rows)

    with whole_file(corpus / name, check=check, name="documents") as file:
        writer = DocumentsWriter(pq.ParquetWriter(file, SCHEMA, compression="zstd"))
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abandon()
            raise
