"""The funnel that another least harmful perplexity would give, from documents/*.parquet alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from oscar_prep.annotate import is_missing
from oscar_prep.errors import PrepareError
from oscar_prep.provenance import Corpus

RULES = ("blocklist", "harmful_pp", "quality_warnings", "language")
"""In the order in which they are asked."""


@dataclass
class Funnel:
    """What a threshold lets through.

    Tokens of documents that the corpus holds are exact; those of documents that it has dropped are estimated by
    their bytes, at the tokens a byte of the documents that it holds.
    """

    minimum: float
    documents: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    bytes_not_tokenized: int = 0
    estimated_tokens: int = 0

    @property
    def exact(self) -> bool:
        """Whether every document that is kept was tokenized."""
        return self.bytes_not_tokenized == 0


def funnels(corpus: Corpus, minima: Sequence[float]) -> list[Funnel]:
    """The funnel of each least harmful perplexity; documents only, for invalid lines have no scores.

    Raises PrepareError if a threshold is not below the corpus's upper one.
    """
    maximum = corpus.configuration["harmful_pp"][1]
    for minimum in minima:
        if not minimum < maximum:
            raise PrepareError(f"--min-harmful-pp {minimum:g} is not below the corpus's upper bound of {maximum:g}")
    found = [Funnel(minimum) for minimum in minima]
    held_bytes = held_tokens = 0
    for judged in _judged(corpus):
        held_bytes += int(judged.bytes[judged.held].sum())
        held_tokens += int(judged.tokens.sum())
        for funnel in found:
            _add(funnel, judged, maximum, corpus.configuration["missing_harmful_pp"] != "keep")
    tokens_a_byte = held_tokens / held_bytes if held_bytes else 0.0
    for funnel in found:
        funnel.estimated_tokens = round(funnel.bytes_not_tokenized * tokens_a_byte)
    return found


@dataclass(frozen=True)
class _Judged:
    """Columns of some documents: `fails` for each rule but harmful_pp, the score, and what the corpus holds."""

    fails: dict[str, np.ndarray]
    scores: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray
    held: np.ndarray


def _judged(corpus: Corpus) -> Iterator[_Judged]:
    for table in corpus.tables(["reason", "failed", "harmful_pp", "bytes", "tokens"]):
        failed = table["failed"].combine_chunks()
        names, rows = pc.list_flatten(failed), pc.list_parent_indices(failed).to_numpy()
        fails = {}
        for rule in RULES:
            fails[rule] = np.zeros(table.num_rows, bool)
            fails[rule][rows[pc.equal(names, rule).to_numpy(zero_copy_only=False)]] = True
        yield _Judged(
            fails,
            table["harmful_pp"].to_numpy().astype(np.float64),
            table["bytes"].to_numpy(),
            pc.fill_null(table["tokens"], 0).to_numpy(),
            table["reason"].is_null().to_numpy(),
        )


def _add(funnel: Funnel, judged: _Judged, maximum: float, drop_missing: bool) -> None:
    inside = (judged.scores > funnel.minimum) & (judged.scores < maximum)
    fails = judged.fails | {"harmful_pp": np.where(is_missing(judged.scores), drop_missing, ~inside)}
    left = np.full(len(judged.scores), True)
    funnel.documents += len(left)
    for rule in RULES:
        funnel.dropped[rule] += int((left & fails[rule]).sum())
        left &= ~fails[rule]
    funnel.kept += int(left.sum())
    funnel.tokens += int(judged.tokens[left].sum())
    funnel.bytes_not_tokenized += int(judged.bytes[left & ~judged.held].sum())


def as_table(funnels: Sequence[Funnel]) -> list[dict[str, str]]:
    """The funnels as rows of text; ≈ marks what was estimated."""
    rows = []
    for funnel in funnels:
        tokens = f"{'' if funnel.exact else '≈ '}{funnel.tokens + funnel.estimated_tokens:,}"
        counts = {"documents": funnel.documents, **{rule: funnel.dropped[rule] for rule in RULES}, "kept": funnel.kept}
        shown = {name: f"{count:,}" for name, count in counts.items()}
        rows.append({"min harmful_pp": f"{funnel.minimum:g}", **shown, "tokens": tokens})
    return rows
