"""One input file → one unit of output: its shards, its documents, its quarantine and its record.

A unit's output depends on its input's content and the configuration, and on nothing else: the same bytes come
from any number of workers, and from a second attempt.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from durable.files import whole_file, write_json
from oscar_prep import documents, parquet
from oscar_prep.annotate import Annotator, annotate
from oscar_prep.configuration import Configuration
from oscar_prep.filters import judge, rules_of
from oscar_prep.inputs import InputFile
from oscar_prep.layout import Layout
from oscar_prep.ledger import Ledger
from oscar_prep.pack import Packer
from oscar_prep.parquet import ParquetReader
from oscar_prep.parse import BadLine, Parsed, parse
from oscar_prep.read import ShardReader
from oscar_prep.shards import FileRecord, ShardWriter, file_record, shard_writer
from oscar_prep.tokenize import Encoder

TRAIN, VALIDATION = "train", "validation"
Report = Callable[[int, Ledger], None]


@dataclass(frozen=True)
class Unit:
    """An input file and its place among the others."""

    file: InputFile
    index: int
    count: int

    @property
    def stem(self) -> str:
        """Name of the unit's files, zero-padded so that name order is file order."""
        width = max(5, len(str(self.count)))
        return f"data-{self.index:0{width}}-of-{self.count:0{width}}"

    @property
    def names(self) -> dict[str, str]:
        """Names of the files that a unit may have, relative to the corpus folder."""
        return {
            TRAIN: f"{TRAIN}/{self.stem}.arrow",
            VALIDATION: f"{VALIDATION}/{self.stem}.arrow",
            "documents": f"documents/{self.stem}.parquet",
            "quarantine": f"quarantine/{self.stem}.jsonl",
            "record": f"units/{self.stem}.json",
        }


@dataclass(frozen=True)
class Budget:
    """How many kept documents and tokens are left for a unit; None is no bound."""

    documents: int | None = None
    tokens: int | None = None

    def reached(self, kept: int, tokens: int) -> bool:
        """Whether `kept` documents of `tokens` tokens use the budget up."""
        return (self.documents is not None and kept >= self.documents) or (
            self.tokens is not None and tokens >= self.tokens
        )

    def less(self, kept: int, tokens: int) -> "Budget":
        """What is left after `kept` documents of `tokens` tokens."""
        return Budget(
            None if self.documents is None else self.documents - kept,
            None if self.tokens is None else self.tokens - tokens,
        )

    def cut(self, lengths: np.ndarray) -> int | None:
        """How many of the next kept documents, of `lengths` tokens, reach the budget; None if they do not."""
        cuts = []
        if self.documents is not None and len(lengths) >= self.documents:
            cuts.append(self.documents)
        if self.tokens is not None and lengths.sum() >= self.tokens:
            cuts.append(int(np.searchsorted(np.cumsum(lengths), self.tokens)) + 1)
        return min(cuts, default=None)


@dataclass(frozen=True)
class UnitRecord:
    """What became of a unit, as its record and the manifest hold it."""

    file: str
    input: dict[str, Any]
    budget: Budget | None
    """The budget that cut the unit short; None if it was read to its end."""
    train: FileRecord
    validation: FileRecord | None
    documents: FileRecord
    quarantine: FileRecord | None
    ledger: Ledger

    def as_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            name: value.as_json() if hasattr(value, "as_json") else vars(value) if isinstance(value, Budget) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "UnitRecord":
        """The record that `as_json` wrote."""
        files = {
            name: FileRecord(**document[name]) if document[name] else None
            for name in (TRAIN, VALIDATION, "documents", "quarantine")
        }
        budget = Budget(**document["budget"]) if document["budget"] else None
        return cls(**{**document, **files, "budget": budget, "ledger": Ledger.from_json(document["ledger"])})

    def files(self) -> list[FileRecord]:
        """Every file of the unit."""
        return [file for file in (self.train, self.validation, self.documents, self.quarantine) if file]


@dataclass(frozen=True)
class UnitWriters:
    """The open files of a unit that is being written."""

    shards: dict[str, ShardWriter]
    documents: documents.DocumentsWriter


class UnitProcessor:
    """Filters, tokenizes and packs input files, one after the other, into a corpus folder."""

    def __init__(
        self, corpus: Path, configuration: Configuration, encoder: Encoder, annotators: Sequence[Annotator] = ()
    ) -> None:
        self._corpus = corpus
        self._configuration = configuration
        self._encoder = encoder
        self._annotators = annotators
        self._rules = rules_of(configuration)
        self._names = [rule.name for rule in self._rules]
        self._splits = (TRAIN, VALIDATION) if configuration.validation_samples else (TRAIN,)

    def process(self, unit: Unit, budget: Budget, report: Report) -> UnitRecord:
        """Write the unit's files and, last, its record.

        Raises PrepareError, leaving nothing behind, if the input is damaged.
        """
        length, dtype = self._configuration.sequence_length, self._encoder.dtype
        self._packers = {split: Packer(length, dtype) for split in self._splits}
        self._ledger, self._quarantine, self._reached = Ledger(), list[BadLine](), False
        with contextlib.ExitStack() as stack:
            shards = {
                split: stack.enter_context(shard_writer(self._corpus, unit.names[split], length, dtype))
                for split in self._splits
            }
            rows = stack.enter_context(documents.documents_writer(self._corpus, unit.names["documents"]))
            facts = self._read(unit, budget, UnitWriters(shards, rows), report)
        for split in self._splits:
            self._ledger.samples[split] = shards[split].rows
            self._ledger.tokens += self._packers[split].tokens
            self._ledger.tail += self._packers[split].tail
        self._ledger.check(length)
        record = UnitRecord(
            file=unit.file.name,
            input=facts,
            budget=budget if self._reached else None,
            train=shards[TRAIN].record,
            validation=shards[VALIDATION].record if VALIDATION in shards else None,
            documents=rows.record,
            quarantine=self._write_quarantine(unit),
            ledger=self._ledger,
        )
        write_json(self._corpus / unit.names["record"], record.as_json(), name="record")
        return record

    def _read(self, unit: Unit, budget: Budget, writers: UnitWriters, report: Report) -> dict[str, Any]:
        with reader_of(unit.file, self._configuration.layout) as reader:
            for block in reader.blocks():
                left = budget.less(self._ledger.kept, sum(packer.tokens for packer in self._packers.values()))
                self._add(unit, parse(block, self._configuration.layout), left, writers)
                report(reader.bytes_read, self._ledger)
                if self._reached:
                    break
            return reader.finish()

    def _add(self, unit: Unit, parsed: Parsed, budget: Budget, writers: UnitWriters) -> None:
        """Judge, tokenize, pack and write one block."""
        batch, notes = annotate(parsed.documents, self._annotators)
        verdicts = judge(batch, self._rules)
        kept = np.flatnonzero(~verdicts.any(axis=0))
        ids, lengths = self._encoder.encode(batch.column("content").take(pa.array(kept)))
        cut = budget.cut(lengths)
        if cut is not None:
            self._reached = True
            rows, kept, lengths = kept[cut - 1] + 1, kept[:cut], lengths[:cut]
            batch, verdicts, ids = batch.slice(0, rows), verdicts[:, :rows], ids[: lengths.sum()]
            parsed = _before(parsed, batch.column("line")[-1].as_py())
        sizes = pc.binary_length(batch.column("content")).to_numpy()
        self._ledger.judge(self._names, verdicts, sizes)
        self._ledger.note({name: mask[: batch.num_rows] for name, mask in notes.items()})
        self._ledger.put_aside([bad.size for bad in parsed.bad])
        self._ledger.skip_blank(len(parsed.blank))
        self._quarantine += parsed.bad
        splits, first = self._pack(batch.take(pa.array(kept)), ids, lengths, writers)
        places = np.full(batch.num_rows, -1)
        places[kept] = np.arange(len(kept))
        writers.documents.add(_describe(unit, batch, self._names, verdicts, places, lengths, splits, first))

    def _pack(
        self, kept: pa.RecordBatch, ids: np.ndarray, lengths: np.ndarray, writers: UnitWriters
    ) -> tuple[np.ndarray, np.ndarray]:
        """Send every kept document to its stream; returns its split (an index) and the row in which it begins."""
        held_out = self._held_out(kept)
        first = np.empty(len(lengths), np.int64)
        for index, split in enumerate(self._splits):
            packer, chosen = self._packers[split], held_out == index
            starts = packer.tokens + np.cumsum(lengths[chosen]) - lengths[chosen]
            first[chosen] = starts // self._configuration.sequence_length
            stream = ids if chosen.all() else ids[np.repeat(chosen, lengths)]
            writers.shards[split].add(packer.add(stream))
        return held_out, first

    def _held_out(self, kept: pa.RecordBatch) -> np.ndarray:
        """1 for the documents of the validation stream, else 0, by record id alone."""
        if len(self._splits) == 1:
            return np.zeros(kept.num_rows, np.int8)
        salt, share = str(self._configuration.salt).encode(), self._configuration.validation_share
        identifiers = kept.column("record_id").to_pylist()
        drawn = [
            split_position(salt, identifier, kept.column("content"), index) < share
            for index, identifier in enumerate(identifiers)
        ]
        return np.array(drawn, np.int8)

    def _write_quarantine(self, unit: Unit) -> FileRecord | None:
        if not self._quarantine:
            return None
        name = unit.names["quarantine"]
        with whole_file(self._corpus / name, name="quarantine") as file:
            for bad in self._quarantine:
                file.write((json.dumps({"file": unit.file.name, **vars(bad)}, ensure_ascii=False) + "\n").encode())
        return file_record(self._corpus / name, name, len(self._quarantine))


def reader_of(file: InputFile, layout: Layout) -> ShardReader | ParquetReader:
    """What reads an input file, by its name."""
    return ParquetReader(file, layout) if file.path.suffix == parquet.SUFFIX else ShardReader(file)


def split_position(salt: bytes, identifier: str | None, contents: pa.StringArray, index: int) -> float:
    """A document's place in [0, 1): the first 8 bytes of blake2b(salt + record id) / 2^64.

    A document without a record id goes by the hexadecimal sha256 of its content.
    """
    if identifier is None:
        identifier = hashlib.sha256(contents[index].as_py().encode()).hexdigest()
    return int.from_bytes(hashlib.blake2b(salt + identifier.encode()).digest()[:8], "big") / 2**64


def _before(parsed: Parsed, last_line: int) -> Parsed:
    """What was read up to and including `last_line`."""
    return Parsed(
        parsed.documents,
        [bad for bad in parsed.bad if bad.line <= last_line],
        [line for line in parsed.blank if line <= last_line],
    )


def _describe(
    unit: Unit,
    batch: pa.RecordBatch,
    names: list[str],
    verdicts: np.ndarray,
    places: np.ndarray,
    lengths: np.ndarray,
    splits: np.ndarray,
    first: np.ndarray,
) -> pa.RecordBatch:
    """The rows of documents/*.parquet; `places` is a document's place among the kept ones, or -1."""
    dropped = places < 0
    failing, rules = np.nonzero(verdicts.T)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(failing, minlength=len(places)))])
    kept = pa.array(np.where(dropped, 0, places), mask=dropped)

    def named(values: np.ndarray, labels: list[str], mask: np.ndarray | None = None) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(
            pa.array(values.astype(np.int8), mask=mask), pa.array(labels, pa.string())
        )

    columns = {
        "file": named(np.zeros(len(places)), [unit.file.name]),
        "line": batch.column("line"),
        "record_id": batch.column("record_id"),
        "url": batch.column("url"),
        "reason": named(verdicts.argmax(axis=0), names, ~dropped),
        "failed": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(names).take(pa.array(rules))),
        "harmful_pp": batch.column("harmful_pp"),
        "quality_warnings": batch.column("quality_warnings"),
        "categories": batch.column("categories"),
        "language": batch.column("language"),
        "language_probability": batch.column("language_probability"),
        "bytes": pc.cast(pc.binary_length(batch.column("content")), pa.int64()),
        "characters": pc.cast(pc.utf8_length(batch.column("content")), pa.int64()),
        "tokens": pa.array(lengths, pa.int64()).take(kept),
        "split": pc.take(named(splits, [TRAIN, VALIDATION]), kept),
        "first_sample": pa.array(first, pa.int64()).take(kept),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in documents.SCHEMA.names], schema=documents.SCHEMA)
