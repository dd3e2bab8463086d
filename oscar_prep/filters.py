"""Which documents a corpus leaves out: one small class per rule; a batch in, a mask of what it drops out.

The rules of Courtois et al. (2024, section 4 and their code), in their order; the first that fails is a
document's reason. Rules see metadata alone: content is never touched here.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocklists.lists import Blocklists
from oscar_prep.configuration import Configuration


class Rule(Protocol):
    """A reason to drop documents."""

    name: str

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        """A boolean for each document (schema parse.DOCUMENT): true where this rule alone would drop it."""
        ...


class Blocklist:
    """Drops documents with an unwanted UT1 category: the record's own, or what the lists say of its URL."""

    name = "blocklist"

    def __init__(self, categories: Sequence[str], lists: Blocklists | None = None) -> None:
        self._categories = pa.array(categories, pa.string())
        self._lists = lists

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        listed = _holds_any(documents.column("categories"), self._categories)
        return listed if self._lists is None else listed | self._lists.blocked(documents.column("url"))


class HarmfulPerplexity:
    """Keeps minimum < harmful_pp < maximum; missing, null, 0 and NaN are one case (0 in the authors' code too)."""

    name = "harmful_pp"

    def __init__(self, minimum: float, maximum: float, missing: str) -> None:
        self._minimum, self._maximum, self._drop_missing = minimum, maximum, missing == "drop"

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        score = documents.column("harmful_pp").to_numpy(zero_copy_only=False)  # null becomes NaN
        missing = np.isnan(score) | (score == 0)
        inside = (score > self._minimum) & (score < self._maximum)
        return np.where(missing, self._drop_missing, ~inside)


class QualityWarnings:
    """Drops documents with one of the named warnings, or with any; no annotation is no warning."""

    name = "quality_warnings"

    def __init__(self, warnings: Sequence[str] | str) -> None:
        self._all = warnings == "all"
        self._warnings = pa.array([] if self._all else list(warnings), pa.string())

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        column = documents.column("quality_warnings")
        if self._all:
            return pc.fill_null(pc.greater(pc.list_value_length(column), 0), False).to_numpy(zero_copy_only=False)
        return _holds_any(column, self._warnings)


def rules_of(configuration: Configuration, lists: Blocklists | None = None) -> list[Rule]:
    """The rules in the order in which they are asked."""
    return [
        Blocklist(configuration.drop_categories, lists),
        HarmfulPerplexity(*configuration.harmful_pp, configuration.missing_harmful_pp),
        QualityWarnings(configuration.drop_warnings),
    ]


def judge(documents: pa.RecordBatch, rules: Sequence[Rule]) -> np.ndarray:
    """What each rule says of each document: shape (rules, documents), true = would drop."""
    return np.stack([rule.drops(documents) for rule in rules])


def _holds_any(lists: pa.ListArray, wanted: pa.StringArray) -> np.ndarray:
    held = np.zeros(len(lists), bool)
    hits = pc.is_in(pc.list_flatten(lists), wanted).to_numpy(zero_copy_only=False)
    held[pc.list_parent_indices(lists).to_numpy()[hits]] = True
    return held
