"""Judging documents where their corpus has not: one small class per source; a batch in, a fuller batch out.

Rules (oscar_prep/filters.py) see metadata alone. Where a record brings none, an annotator puts it there first, so
that a document's fate rests on the same columns whoever filled them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocklists.lists import Blocklists
from oscar_prep.language import LanguageModel
from oscar_prep.layout import Documents
from oscar_prep.perplexity import HarmfulModel
from oscar_prep.quality_warnings import quality_warnings

Notes = dict[str, npt.NDArray[np.bool_]]
"""What was done to which documents of a batch, for the ledger: a name and a mask."""


class Annotator(Protocol):
    """A source of metadata."""

    def annotate(self, documents: Documents) -> tuple[Documents, Notes]:
        """The documents with columns filled, and what was done to which of them."""
        ...


@dataclass(frozen=True)
class ListedCategories:
    """Adds the UT1 categories that lists have for a document's URL to those of its record."""

    lists: Blocklists

    def annotate(self, documents: Documents) -> tuple[Documents, Notes]:
        named = self.lists.named(documents.metadata.column("url"))
        notes = {"bad_url": named.bad}
        if not named.categories:
            return documents, notes
        categories = documents.metadata.column("categories").to_pylist()
        for row, names in named.categories.items():
            own = categories[row] or []
            categories[row] = own + [name for name in names if name not in own]
        return _with(documents, "categories", pa.array(categories, pa.list_(pa.string()))), notes


@dataclass(frozen=True)
class HarmfulScores:
    """Scores harmful perplexity by a KenLM model: of documents without a value, or with `rescore` of all."""

    model: HarmfulModel
    rescore: bool = False

    def annotate(self, documents: Documents) -> tuple[Documents, Notes]:
        scores = documents.metadata.column("harmful_pp").to_numpy(zero_copy_only=False).astype(np.float64)
        chosen = np.full(len(scores), True) if self.rescore else is_missing(scores)
        scores[chosen] = self.model.perplexities(_chosen(documents, chosen))
        filled = pa.array(scores, mask=np.isnan(scores))
        return _with(documents, "harmful_pp", filled), {"harmful_pp_scored": chosen}


@dataclass(frozen=True)
class ComputedWarnings:
    """Computes quality warnings by OSCAR's rules: of documents without any, or with `rescore` of all.

    OSCAR writes no difference between a document that it found nothing to warn of and one that it did not look at.
    """

    rescore: bool = False

    def annotate(self, documents: Documents) -> tuple[Documents, Notes]:
        own = documents.metadata.column("quality_warnings")
        chosen = np.full(len(own), True) if self.rescore else own.is_null().to_numpy(zero_copy_only=False)
        computed = quality_warnings(pa.array(_chosen(documents, chosen), pa.large_string())).cast(own.type)
        place = np.where(chosen, len(own) + np.cumsum(chosen) - 1, np.arange(len(own)))
        filled = pa.concat_arrays([own, computed]).take(pa.array(place))
        return _with(documents, "quality_warnings", filled), {"warnings_computed": chosen}


@dataclass(frozen=True)
class IdentifiedLanguages:
    """Identifies languages by a fastText model: of documents without one, or with `rescore` of all."""

    model: LanguageModel
    rescore: bool = False

    def annotate(self, documents: Documents) -> tuple[Documents, Notes]:
        missing = pc.or_(
            pc.is_null(documents.metadata.column("language")),
            pc.is_null(documents.metadata.column("language_probability")),
        )
        chosen = np.full(len(documents), True) if self.rescore else missing.to_numpy(zero_copy_only=False)
        identified = self.model.identify(_chosen(documents, chosen))
        mask = pa.array(chosen)
        columns = {
            "language": pa.array(identified.labels, pa.string()),
            "language_probability": pa.array(identified.probabilities, pa.float64()),
        }
        for name, values in columns.items():
            documents = _with(documents, name, pc.replace_with_mask(documents.metadata.column(name), mask, values))
        return documents, {"language_identified": chosen}


def annotate(documents: Documents, annotators: Sequence[Annotator]) -> tuple[Documents, Notes]:
    """The documents as all annotators leave them, one after the other, and the notes of all."""
    notes: Notes = {}
    for annotator in annotators:
        documents, more = annotator.annotate(documents)
        notes |= more
    return documents, notes


def is_missing(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where a harmful perplexity is none: null (read as NaN), NaN, or 0 as in the authors' code."""
    return np.isnan(scores) | (scores == 0)


def _chosen(documents: Documents, mask: npt.NDArray[np.bool_]) -> list[str]:
    return list(itertools.compress(documents.texts, mask))


def _with(documents: Documents, name: str, values: pa.Array) -> Documents:
    metadata = documents.metadata
    index = metadata.schema.get_field_index(name)
    return replace(documents, metadata=metadata.set_column(index, metadata.schema.field(name), values))
