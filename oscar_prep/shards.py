"""Packed rows on disk: Arrow stream files that `datasets.load_from_disk` opens and that are hashed and counted.

A stream that is cut between two batches reads short without an error, hence the rows and sha256 of every shard.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from durable.files import file_sha256, whole_file
from durable.remote import Place
from oscar_prep.errors import PrepareError

# Rows in a record batch: 4 MiB at 512 tokens of uint16; the same however the rows arrive, so bytes repeat.
BATCH_ROWS = 4096
COLUMN = "input_ids"
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class FileRecord:
    """A file of the corpus as the manifest lists it; `file` is relative to the corpus folder."""

    file: str
    rows: int
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return dict(vars(self))


def size_problem(corpus: Place, file: FileRecord) -> str | None:
    """What is wrong with a file by its name and size alone; None if nothing is."""
    path = corpus / file.file
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    return f"{size:,} bytes, expected {file.bytes:,}" if size != file.bytes else None


def problem(corpus: Place, file: FileRecord) -> str | None:
    """What is wrong with a file, which is read to its end; None if it is the one that was recorded."""
    found = size_problem(corpus, file)
    if found is None and file_sha256(corpus / file.file) != file.sha256:
        return "its sha256 is not the one that was recorded"
    return found


def file_record(path: Path, name: str, rows: int) -> FileRecord:
    """The record of the file at `path`, which is or will be called `name` in the corpus folder."""
    return FileRecord(name, rows, path.stat().st_size, file_sha256(path))


class ShardWriter:
    """Collects rows and writes them in batches of BATCH_ROWS; `record` is there when the file is committed."""

    record: FileRecord

    def __init__(self, file: BinaryIO, length: int, dtype: np.dtype) -> None:
        self._length = length
        self._schema = shard_schema(length, dtype)
        self._writer = pa.ipc.new_stream(file, self._schema)
        self._waiting: list[np.ndarray] = []
        self._rows_waiting = 0
        self.rows = 0

    def add(self, rows: np.ndarray) -> None:
        """Append rows of shape (n, length)."""
        if not len(rows):
            return
        self._waiting.append(rows)
        self._rows_waiting += len(rows)
        self.rows += len(rows)
        if self._rows_waiting >= BATCH_ROWS:
            joined = np.concatenate(self._waiting)
            full = len(joined) // BATCH_ROWS * BATCH_ROWS
            for start in range(0, full, BATCH_ROWS):
                self._write(joined[start : start + BATCH_ROWS])
            self._waiting = [joined[full:].copy()]
            self._rows_waiting = len(joined) - full

    def close(self) -> None:
        """Write what is waiting and the end of the stream."""
        if self._rows_waiting:
            self._write(np.concatenate(self._waiting))
        self._writer.close()

    def _write(self, rows: np.ndarray) -> None:
        values = pa.array(rows.reshape(-1), self._schema.field(COLUMN).type.value_type)
        column = pa.FixedSizeListArray.from_arrays(values, self._length)
        self._writer.write_batch(pa.RecordBatch.from_arrays([column], schema=self._schema))


@contextlib.contextmanager
def shard_writer(corpus: Path, name: str, length: int, dtype: np.dtype) -> Iterator[ShardWriter]:
    """Yield a writer for `corpus/name`; the file appears whole, after it was read again and its rows counted."""
    writer: ShardWriter

    def check(partial: Path) -> None:
        rows = sum(batch.num_rows for batch in read_batches(partial))
        if rows != writer.rows:
            raise PrepareError(f"{corpus / name}: wrote {writer.rows} rows and read {rows} back")
        writer.record = file_record(partial, name, rows)

    with whole_file(corpus / name, check=check, name="shard") as file:
        writer = ShardWriter(file, length, dtype)
        yield writer
        writer.close()


def shard_schema(length: int, dtype: np.dtype) -> pa.Schema:
    """One column of fixed-size lists."""
    return pa.schema([pa.field(COLUMN, pa.list_(pa.from_numpy_dtype(dtype), length))])


def read_batches(path: Place) -> Iterator[pa.RecordBatch]:
    """The record batches of a shard, memory-mapped if it is here. Raises pa.ArrowInvalid or OSError if damaged."""
    opened = pa.memory_map(str(path)) if isinstance(path, Path) else path.open()
    with opened as source, pa.ipc.open_stream(source) as reader:
        yield from reader


def read_rows(path: Path, length: int) -> Iterator[np.ndarray]:
    """The rows of a shard as arrays of shape (n, length), without a copy."""
    for batch in read_batches(path):
        yield batch.column(0).flatten().to_numpy(zero_copy_only=True).reshape(-1, length)


def corpus_hash(shards: Iterable[FileRecord]) -> str:
    """sha256 over the hexadecimal sha256 of every shard: train then validation, each in name order."""
    ordered = sorted(shards, key=lambda shard: (SPLITS.index(shard.file.partition("/")[0]), shard.file))
    return hashlib.sha256("".join(shard.sha256 for shard in ordered).encode("ascii")).hexdigest()


def dataset_files(splits: Mapping[str, Sequence[FileRecord]], length: int, dtype: np.dtype) -> dict[str, Any]:
    """Name and content of what `datasets.load_from_disk` reads beside the shards."""
    feature = {"feature": {"dtype": str(dtype), "_type": "Value"}, "length": length, "_type": "Sequence"}
    files: dict[str, Any] = {}
    for split, shards in splits.items():
        files[f"{split}/dataset_info.json"] = {"features": {COLUMN: feature}}
        files[f"{split}/state.json"] = {
            "_data_files": [{"filename": Path(shard.file).name} for shard in shards],
            # A constant would make Dataset.map return the cached results of another corpus.
            "_fingerprint": corpus_hash(shards)[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
    return {**files, "dataset_dict.json": {"splits": list(splits)}}


def read_json(path: Place) -> Any:
    """The JSON document at `path`. Raises PrepareError, naming it, if it is none."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise PrepareError(f"{path} is not JSON: {error}") from None
