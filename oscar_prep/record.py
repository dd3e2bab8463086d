"""A unit's name, the budget it was given, and the record of what became of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from durable.errors import with_hint
from durable.remote import Place
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.ledger import Ledger
from oscar_prep.shapes import UNIT_AGAIN, check_unit
from oscar_prep.shards import SPLITS, FileRecord, read_json

TRAIN, VALIDATION = SPLITS


DIFFERS = "units/nanotoken.differs"
"""Is there once nanotoken gave a wrong id: then `tokenizers` computes the whole corpus, what was made included."""


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
        stem = self.stem
        return {
            TRAIN: f"{TRAIN}/{stem}.arrow",
            VALIDATION: f"{VALIDATION}/{stem}.arrow",
            "documents": f"documents/{stem}.parquet",
            "quarantine": f"quarantine/{stem}.jsonl",
            "record": f"units/{stem}.json",
            "source": f"units/{stem}.source",
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

    @classmethod
    def read(cls, path: Place) -> "UnitRecord":
        """The record at `path`. Raises PrepareError if it is none."""
        try:
            document = read_json(path)
        except PrepareError as error:
            raise with_hint(error, UNIT_AGAIN) from None
        check_unit(document, path)
        return cls.from_json(document)

    def is_doubtful(self, corpus: Path) -> bool:
        """Whether nanotoken computed the unit's ids, and gave wrong ones elsewhere in the corpus."""
        return "ids_checked" in self.ledger.notes and (corpus / DIFFERS).is_file()

    def files(self) -> list[FileRecord]:
        """Every file of the unit."""
        return [file for file in (self.train, self.validation, self.documents, self.quarantine) if file]
