"""Which documents a corpus leaves out: one small class per rule; a batch in, a mask of what it drops out.

The rules of Courtois et al. (2024, section 4 and their code), in their order; the first that fails is a
document's reason. Rules see metadata alone: content is never touched here.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oscar_prep.annotate import is_missing
from oscar_prep.configuration import Configuration


class Rule(Protocol):
    """A reason to drop documents."""

    name: str

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        """A boolean for each document (schema layout.METADATA): true where this rule alone would drop it."""
        ...


class Blocklist:
    """Drops documents with an unwanted UT1 category."""

    name = "blocklist"

    def __init__(self, categories: Sequence[str]) -> None:
        self._categories = pa.array(categories, pa.string())

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        return _holds_any(documents.column("categories"), self._categories)


class HarmfulPerplexity:
    """Keeps minimum < harmful_pp < maximum; missing, null, 0 and NaN are one case (0 in the authors' code too)."""

    name = "harmful_pp"

    def __init__(self, minimum: float, maximum: float, missing: str) -> None:
        self._minimum, self._maximum, self._drop_missing = minimum, maximum, missing != "keep"

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        score = documents.column("harmful_pp").to_numpy(zero_copy_only=False)  # null becomes NaN
        missing = is_missing(score)
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


class Language:
    """Keeps what is of one language with at least a given probability; a document of unknown language is dropped."""

    name = "language"

    def __init__(self, language: str, minimum: float) -> None:
        self._language, self._minimum = language, minimum

    def drops(self, documents: pa.RecordBatch) -> np.ndarray:
        same = pc.equal(documents.column("language"), self._language)
        likely = pc.greater_equal(documents.column("language_probability"), self._minimum)
        return ~pc.fill_null(pc.and_(same, likely), False).to_numpy(zero_copy_only=False)


def rules_of(configuration: Configuration) -> list[Rule]:
    """The rules in the order in which they are asked: the paper's three, then the language where one is wanted."""
    rules: list[Rule] = [
        Blocklist(configuration.drop_categories),
        HarmfulPerplexity(*configuration.harmful_pp, configuration.missing_harmful_pp),
        QualityWarnings(configuration.drop_warnings),
    ]
    if configuration.language is not None:
        rules.append(Language(configuration.language, configuration.min_language_probability))
    return rules


def judge(documents: pa.RecordBatch, rules: Sequence[Rule]) -> np.ndarray:
    """What each rule says of each document: shape (rules, documents), true = would drop."""
    return np.stack([rule.drops(documents) for rule in rules])


def _holds_any(lists: pa.ListArray, wanted: pa.StringArray) -> np.ndarray:
    held = np.zeros(len(lists), bool)
    hits = pc.is_in(pc.list_flatten(lists), wanted).to_numpy(zero_copy_only=False)
    held[pc.list_parent_indices(lists).to_numpy()[hits]] = True
    return held
