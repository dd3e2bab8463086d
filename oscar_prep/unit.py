"""One input file → one unit of output: its shards, its documents, its quarantine and its record.

A unit's output depends on its input's content and the configuration, and on nothing else: the same bytes come
from any number of workers, and from a second attempt.
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from durable.errors import with_hint
from durable.files import write_json, write_text
from oscar_prep import documents, parquet
from oscar_prep.annotate import Annotator, annotate
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.filters import judge, rules_of
from oscar_prep.inputs import InputFile
from oscar_prep.layout import Documents, Layout
from oscar_prep.ledger import Ledger
from oscar_prep.pack import Packer
from oscar_prep.parquet import ParquetReader
from oscar_prep.parse import Parsed, parse
from oscar_prep.quarantine import QuarantineWriter
from oscar_prep.read import ShardReader
from oscar_prep.record import DIFFERS, TRAIN, VALIDATION, Budget, Unit, UnitRecord
from oscar_prep.shards import ShardWriter, shard_writer
from oscar_prep.tokenize import CHECKED_EVERY, Encoder

Report = Callable[[int, Ledger], None]


@dataclass(frozen=True)
class UnitWriters:
    """The open files of a unit that is being written."""

    shards: dict[str, ShardWriter]
    documents: documents.DocumentsWriter
    quarantine: QuarantineWriter


class UnitProcessor:
    """Filters, tokenizes and packs input files, one after the other, into a corpus folder."""

    def __init__(
        self, corpus: Path, configuration: Configuration, encoder: Encoder, annotators: Sequence[Annotator] = ()
    ) -> None:
        self._corpus = corpus
        self._configuration = configuration
        self._layout = configuration.layout
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
        self._ledger, self._reached = Ledger(), False
        with contextlib.ExitStack() as stack:
            shards = {
                split: stack.enter_context(shard_writer(self._corpus, unit.names[split], length, dtype))
                for split in self._splits
            }
            rows = stack.enter_context(documents.documents_writer(self._corpus, unit.names["documents"]))
            quarantine = stack.enter_context(QuarantineWriter(self._corpus, unit.names["quarantine"], unit.file.name))
            facts = self._read(unit, budget, UnitWriters(shards, rows, quarantine), report)
        for split in self._splits:
            self._ledger.samples[split] = shards[split].rows
            self._ledger.tokens += self._packers[split].tokens
            self._ledger.tail += self._packers[split].tail
        self._ledger.check(length)
        if quarantine.record is None:  # an earlier attempt with more of the budget may have left one
            (self._corpus / unit.names["quarantine"]).unlink(missing_ok=True)
        record = UnitRecord(
            file=unit.file.name,
            input=facts,
            budget=budget if self._reached else None,
            train=shards[TRAIN].record,
            validation=shards[VALIDATION].record if VALIDATION in shards else None,
            documents=rows.record,
            quarantine=quarantine.record,
            ledger=self._ledger,
        )
        write_json(self._corpus / unit.names["record"], record.as_json(), name="record")
        return record

    def _read(self, unit: Unit, budget: Budget, writers: UnitWriters, report: Report) -> dict[str, Any]:
        with reader_of(unit.file, self._layout) as reader:
            for block in reader.blocks():
                left = budget.less(self._ledger.kept, sum(packer.tokens for packer in self._packers.values()))
                self._add(unit, parse(block, self._layout), left, writers)
                report(reader.bytes_read, self._ledger)
                if self._reached:
                    break
            return reader.finish()

    def _add(self, unit: Unit, parsed: Parsed, budget: Budget, writers: UnitWriters) -> None:
        """Judge, tokenize, pack and write one block."""
        batch, notes = annotate(parsed.documents, self._annotators)
        verdicts = judge(batch.metadata, self._rules)
        kept = np.flatnonzero(~verdicts.any(axis=0))
        chosen = batch.take(kept)
        ids, lengths = self._encoder.encode(chosen.texts)
        cut = budget.cut(lengths)
        if cut is not None:
            self._reached = True
            rows, chosen, lengths = kept[cut - 1] + 1, chosen.first(cut), lengths[:cut]
            batch, verdicts, ids = batch.first(rows), verdicts[:, :rows], ids[: lengths.sum()]
            parsed = _before(parsed, batch.metadata.column("line")[-1].as_py())
        self._check_ids(unit, chosen, ids, lengths)
        self._ledger.judge(self._names, verdicts, batch.sizes)
        self._ledger.note({name: mask[: len(batch)] for name, mask in notes.items()})
        self._ledger.put_aside([bad.size for bad in parsed.bad])
        self._ledger.skip_blank(len(parsed.blank))
        writers.quarantine.add(parsed.bad)
        splits, first = self._pack(chosen, ids, lengths, writers)
        fate = documents.Fate(self._names, verdicts, lengths, splits, first)
        writers.documents.add(documents.describe(unit.file.name, batch, fate))

    def _check_ids(self, unit: Unit, kept: Documents, ids: np.ndarray, lengths: np.ndarray) -> None:
        """Compare the ids of the first kept document of the unit, and of every CHECKED_EVERY-th after it.

        Raises PrepareError, naming the document, where `tokenizers` gives others.
        """
        if not self._encoder.is_checked:
            return
        ends = np.cumsum(lengths)
        chosen = range(-self._ledger.kept % CHECKED_EVERY, len(kept), CHECKED_EVERY)
        for row in chosen:
            if self._encoder.differs(kept.texts[row], ids[ends[row] - lengths[row] : ends[row]]):
                line = kept.metadata.column("line")[row].as_py()
                write_text(self._corpus / DIFFERS, f"{unit.file.name} line {line}\n", name="differs")
                raise with_hint(
                    PrepareError(f"{unit.file.path} line {line}: nanotoken gives other ids than tokenizers"),
                    "pip uninstall nanotoken, then the same command again: tokenizers computes all ids, slowly; "
                    "please report the document",
                )
        self._ledger.notes.update({"ids_checked": len(chosen), "ids_different": 0})

    def _pack(
        self, kept: Documents, ids: np.ndarray, lengths: np.ndarray, writers: UnitWriters
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

    def _held_out(self, kept: Documents) -> np.ndarray:
        """1 for the documents of the validation stream, else 0, by record id alone."""
        if len(self._splits) == 1:
            return np.zeros(len(kept), np.int8)
        salt, share = str(self._configuration.salt).encode(), self._configuration.validation_share
        identifiers = kept.metadata.column("record_id").to_pylist()
        drawn = [
            split_position(salt, identifier, text) < share
            for identifier, text in zip(identifiers, kept.texts, strict=True)
        ]
        return np.array(drawn, np.int8)


def reader_of(file: InputFile, layout: Layout) -> ShardReader | ParquetReader:
    """What reads an input file, by its name."""
    return ParquetReader(file, layout) if file.path.suffix == parquet.SUFFIX else ShardReader(file)


def split_position(salt: bytes, identifier: str | None, text: str) -> float:
    """A document's place in [0, 1): the first 8 bytes of blake2b(salt + record id) / 2^64.

    A document without a record id goes by the hexadecimal sha256 of its content.
    """
    if identifier is None:
        identifier = hashlib.sha256(text.encode()).hexdigest()
    return int.from_bytes(hashlib.blake2b(salt + identifier.encode()).digest()[:8], "big") / 2**64


def _before(parsed: Parsed, last_line: int) -> Parsed:
    """What was read up to and including `last_line`."""
    return Parsed(
        parsed.documents,
        [bad for bad in parsed.bad if bad.line <= last_line],
        [line for line in parsed.blank if line <= last_line],
    )
