"""documents/*.parquet: one row for every document, kept or dropped, with all that its fate rests on but its text.

`failed` holds every rule that the document fails, `reason` the first (null: kept). `first_sample` is the row of
the unit's shard of `split` in which the document begins; it is the shard's number of rows or more if the document
begins in the tail or in the surplus. Lines that are no documents are in quarantine/, not here.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from durable.files import whole_file
from oscar_prep.errors import PrepareError
from oscar_prep.layout import METADATA, Documents
from oscar_prep.shards import SPLITS, FileRecord, file_record

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


@dataclass(frozen=True)
class Fate:
    """What became of the documents of a batch; arrays over the kept documents but for `verdicts`."""

    rules: Sequence[str]
    verdicts: np.ndarray
    """(rules, documents): true where a rule would drop a document."""
    tokens: np.ndarray
    split: np.ndarray
    """Index into SPLITS."""
    first_sample: np.ndarray


def describe(file: str, batch: Documents, fate: Fate) -> pa.RecordBatch:
    """The rows (schema SCHEMA) of documents of the input file called `file`."""
    dropped: np.ndarray = np.any(fate.verdicts, axis=0)
    failing, rules = np.nonzero(fate.verdicts.T)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(failing, minlength=len(dropped)))])
    # A document's place among the kept ones; null for the others, and so is what is taken there.
    place = pa.array(np.cumsum(~dropped) - 1, mask=dropped)
    columns = {
        **{name: batch.metadata.column(name) for name in METADATA.names},
        "file": _named(np.zeros(len(dropped)), [file]),
        "reason": _named(fate.verdicts.argmax(axis=0), fate.rules, ~dropped),
        "failed": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(fate.rules).take(pa.array(rules))),
        "bytes": pa.array(batch.sizes),
        "characters": pa.array(map(len, batch.texts), pa.int64(), size=len(batch)),
        "tokens": pa.array(fate.tokens, pa.int64()).take(place),
        "split": _named(fate.split, SPLITS).take(place),
        "first_sample": pa.array(fate.first_sample, pa.int64()).take(place),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _named(values: np.ndarray, labels: Sequence[str], mask: np.ndarray | None = None) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int8), mask=mask), pa.array(labels, pa.string()))
