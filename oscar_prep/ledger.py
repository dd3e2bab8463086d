"""Every line, document and token accounted for: a ledger closes, or the run fails."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from oscar_prep.errors import PrepareError


@dataclass
class Ledger:
    """The counts of one unit, or of a corpus.

    documents = kept + Σ dropped + invalid; lines = documents + blank;
    tokens = sequence_length · (train + validation + surplus) + tail.
    """

    lines: int = 0
    blank: int = 0
    documents: int = 0
    kept: int = 0
    invalid: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By the first rule that fails."""
    alone: Counter[str] = field(default_factory=Counter)
    """What each rule would drop if it were the only one."""
    overlaps: Counter[str] = field(default_factory=Counter)
    """Dropped documents by the exact set of rules that they fail, joined by +."""
    notes: Counter[str] = field(default_factory=Counter)
    """Documents by what was judged here (harmful_pp_scored, language_identified), or could not be (bad_url).

    ids_checked is how many documents' ids nanotoken and `tokenizers` both computed, ids_different for how many they
    differed; neither is there where `tokenizers` computed all.
    """
    bytes: Counter[str] = field(default_factory=Counter)
    """UTF-8 bytes of content: kept, and dropped by reason; of invalid lines, the bytes of the line."""
    tokens: int = 0
    samples: Counter[str] = field(default_factory=Counter)
    """Rows: train, validation, and the surplus that validation does not keep."""
    tail: int = 0
    """Tokens after the last full row of a unit's streams; they are in no sample."""

    def add(self, other: Self) -> None:
        """Add the counts of another ledger to this one."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def judge(self, names: Sequence[str], verdicts: np.ndarray, sizes: np.ndarray) -> None:
        """Count documents: `verdicts` (rules, documents) true where a rule would drop one, `sizes` in bytes."""
        failed = verdicts.any(axis=0)
        first = verdicts.argmax(axis=0)
        self.documents += len(sizes)
        self.lines += len(sizes)
        self.kept += int((~failed).sum())
        self.bytes["kept"] += int(sizes[~failed].sum())
        for index, name in enumerate(names):
            chosen = failed & (first == index)
            self.dropped[name] += int(chosen.sum())
            self.alone[name] += int(verdicts[index].sum())
            self.bytes[name] += int(sizes[chosen].sum())
        patterns = (verdicts * (1 << np.arange(len(names)))[:, None]).sum(axis=0)
        for pattern, count in zip(*np.unique(patterns[failed], return_counts=True), strict=True):
            failing = [name for index, name in enumerate(names) if pattern >> index & 1]
            self.overlaps["+".join(failing)] += int(count)

    def note(self, notes: Mapping[str, np.ndarray]) -> None:
        """Count documents: each note is a mask."""
        for name, mask in notes.items():
            self.notes[name] += int(mask.sum())

    def put_aside(self, sizes: Sequence[int]) -> None:
        """Count lines that are no documents, by the bytes of each."""
        self.lines += len(sizes)
        self.documents += len(sizes)
        self.invalid += len(sizes)
        self.bytes["invalid"] += sum(sizes)

    def skip_blank(self, count: int) -> None:
        """Count blank lines."""
        self.lines += count
        self.blank += count

    def check(self, sequence_length: int) -> None:
        """Raises PrepareError if a sum does not close: something was lost or counted twice."""
        sums = {
            "lines = documents + blank": (self.lines, self.documents + self.blank),
            "documents = kept + dropped + invalid": (
                self.documents, self.kept + self.dropped.total() + self.invalid,
            ),
            "dropped = overlaps": (self.dropped.total(), self.overlaps.total()),
            "tokens = samples + tail": (self.tokens, sequence_length * self.samples.total() + self.tail),
        }  # fmt: skip
        for name, (left, right) in sums.items():
            if left != right:
                raise PrepareError(f"the ledger does not close: {name}, but {left} ≠ {right}")

    def as_json(self) -> dict[str, Any]:
        """The ledger as the manifest holds it."""
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The ledger that `as_json` wrote."""
        counts: dict[str, Any] = {
            name: Counter(value) if isinstance(value, dict) else value for name, value in document.items()
        }
        return cls(**counts)
