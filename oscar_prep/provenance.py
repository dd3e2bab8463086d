"""From a sample back to its documents, and from a document to its fate: by documents/*.parquet, not by the text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from blocklists.canonical import canonical
from oscar_prep.errors import PrepareError
from oscar_prep.manifest import read_manifest, tokenizer_file
from oscar_prep.plan import MANIFEST
from oscar_prep.shapes import check_manifest
from oscar_prep.shards import read_rows

SCORES = ("harmful_pp", "language_probability")
"""Numbers of a document that a threshold may be near to."""
_FATE = (
    "file", "line", "record_id", "url", "failed", "harmful_pp", "quality_warnings", "categories",
    "language", "language_probability", "bytes", "tokens", "split", "first_sample",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """The part of a sample that comes from one document: tokens [start, end) of the sample, decoded."""

    start: int
    end: int
    text: str
    document: dict[str, Any]
    document_start: int
    """Which of the document's tokens comes first; 0 is its [CLS]."""


@dataclass(frozen=True)
class Failing:
    """A rule that a document fails, with the value and what was asked of it."""

    rule: str
    value: str
    wanted: str


@dataclass(frozen=True)
class Host:
    """How many documents of a host were dropped and kept."""

    host: str
    dropped: int
    kept: int
    reasons: dict[str, int]


class Corpus:
    """A finished corpus folder, read only."""

    def __init__(self, folder: Path) -> None:
        """Raises PrepareError if it is none, or its manifest is damaged."""
        self.folder = folder
        self.manifest = read_manifest(folder)
        check_manifest(self.manifest, folder / MANIFEST)
        self.configuration: dict[str, Any] = self.manifest["configuration"]

    def sample(self, index: int, split: str = "train") -> list[Piece]:
        """What one sample is made of, in its order. Raises PrepareError if the corpus has no such sample."""
        length = self.manifest["sequence_length"]
        unit, row = self._locate(index, split)
        ids = self._row(unit[split]["file"], row)
        documents = self._documents(unit, [*_FATE])
        documents = documents.filter(pc.equal(documents["split"].cast(pa.string()), split))
        tokens = documents["tokens"].to_numpy()
        ends = np.cumsum(tokens)
        starts = ends - tokens
        first, last = row * length, (row + 1) * length
        tokenizer = Tokenizer.from_file(str(tokenizer_file(self.folder)))
        pieces = []
        for place in np.flatnonzero((ends > first) & (starts < last)).tolist():
            start, end = max(int(starts[place]), first), min(int(ends[place]), last)
            text = tokenizer.decode(ids[start - first : end - first].tolist(), skip_special_tokens=False)
            (document,) = documents.slice(place, 1).to_pylist()
            pieces.append(Piece(start - first, end - first, text, document, start - int(starts[place])))
        return pieces

    def by_url(self, url: str) -> list[dict[str, Any]]:
        """Every document of a URL: those that spell it so, else those that lead to the same address."""
        found = self._where(lambda table: pc.equal(table["url"], url))
        address = canonical(url) if not found else None
        if address is None:
            return found
        near = self._where(
            lambda table: pc.match_substring(table["url"], address.host.removeprefix("www."), ignore_case=True)
        )
        return [row for row in near if canonical(row["url"]) == address]

    def near(self, score: str, threshold: float, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The `count` documents just below a threshold and the `count` at or just above it, nearest first."""
        if score not in SCORES:
            raise PrepareError(f"`{score}` is not a score, expected one of {', '.join(SCORES)}")
        below = _Nearest(count)
        above = _Nearest(count)
        for table in self.tables([*_FATE]):
            values = table[score].to_numpy()
            below.add(table, np.where(values < threshold, threshold - values, np.inf))
            above.add(table, np.where(values >= threshold, values - threshold, np.inf))
        return below.rows(), above.rows()

    def top_dropped(self, count: int) -> list[Host]:
        """The hosts with most dropped documents, and why those were dropped. Documents without a host are `(none)`."""
        dropped: Counter[tuple[str, str]] = Counter()
        kept: Counter[str] = Counter()
        for table in self.tables(["url", "reason"]):
            grouped = pa.table({"host": hosts_of(table["url"]), "reason": table["reason"].cast(pa.string())})
            for row in grouped.group_by(["host", "reason"]).aggregate([([], "count_all")]).to_pylist():
                if row["reason"] is None:
                    kept[row["host"]] += row["count_all"]
                else:
                    dropped[row["host"], row["reason"]] += row["count_all"]
        totals: Counter[str] = Counter()
        for (host, _), number in dropped.items():
            totals[host] += number
        ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [
            Host(host, total, kept[host], {reason: n for (name, reason), n in sorted(dropped.items()) if name == host})
            for host, total in ranked
        ]

    def of_fate(self, unit: dict[str, Any], reason: str | None) -> Iterator[dict[str, Any]]:
        """The documents of a unit that were dropped for a reason, or kept (None), in their order."""
        documents = self._documents(unit, ["reason", *_FATE])
        reasons = documents["reason"].cast(pa.string())
        chosen = pc.is_null(reasons) if reason is None else pc.fill_null(pc.equal(reasons, reason), False)
        for batch in documents.filter(chosen).to_batches(max_chunksize=64):
            yield from batch.to_pylist()

    def first_sample(self, document: dict[str, Any]) -> int | None:
        """The number of the sample in which a kept document begins; None if that became no row of the corpus."""
        split, row, before = document["split"], document["first_sample"], 0
        for unit in self.manifest["units"]:
            rows = unit[split]["rows"]
            if unit["file"] == document["file"]:
                return before + row if row < rows else None
            before += rows
        return None

    def failing(self, document: dict[str, Any]) -> list[Failing]:
        """The rules that a document fails, the first being the reason why it was dropped; none if it was kept."""
        return [self._failing(rule, document) for rule in document["failed"]]

    def _failing(self, rule: str, document: dict[str, Any]) -> Failing:
        settings = self.configuration
        if rule == "blocklist":
            unwanted = [name for name in document["categories"] if name in settings["drop_categories"]]
            return Failing(rule, _listed(unwanted), "none of the dropped categories")
        if rule == "harmful_pp":
            minimum, maximum = settings["harmful_pp"]
            value = document["harmful_pp"]
            return Failing(rule, "missing" if not value else f"{value:.6g}", f"{minimum:g} < harmful_pp < {maximum:g}")
        if rule == "language":
            value = f"{document['language'] or 'missing'} {document['language_probability'] or 0:.3f}"
            wanted = f"{settings['language']} with at least {settings['min_language_probability']:g}"
            return Failing(rule, value, wanted)
        unwanted = document["quality_warnings"] or []
        if settings["drop_warnings"] != "all":
            unwanted = [name for name in unwanted if name in settings["drop_warnings"]]
        return Failing(rule, _listed(unwanted), "none of the dropped warnings")

    def _locate(self, index: int, split: str) -> tuple[dict[str, Any], int]:
        """The unit that holds a sample, and the sample's row in the unit's shard."""
        rows = self.manifest["splits"].get(split, {"rows": 0})["rows"]
        if not 0 <= index < rows:
            raise PrepareError(f"{self.folder} has no {split} sample {index}, expected 0 to {rows - 1}")
        for unit in self.manifest["units"]:
            if index < unit[split]["rows"]:
                return unit, index
            index -= unit[split]["rows"]
        raise PrepareError(f"{self.folder}: the units hold fewer {split} samples than the manifest says")

    def _row(self, shard: str, row: int) -> np.ndarray:
        for rows in read_rows(self.folder / shard, self.manifest["sequence_length"]):
            if row < len(rows):
                return rows[row]
            row -= len(rows)
        raise PrepareError(f"{self.folder / shard} holds fewer rows than the manifest says")

    def _documents(self, unit: dict[str, Any], columns: Sequence[str]) -> pa.Table:
        try:
            # pq.read_table would import pyarrow.dataset, and with it pandas, for 0.3 s.
            with pq.ParquetFile(self.folder / unit["documents"]["file"]) as file:
                return file.read(columns=list(columns), use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise PrepareError(f"{self.folder / unit['documents']['file']} is damaged or gone: {error}") from None

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of documents/*.parquet, a unit at a time. Raises PrepareError if a file is damaged or gone."""
        for unit in self.manifest["units"]:
            yield self._documents(unit, columns)

    def _where(self, condition: Any) -> list[dict[str, Any]]:
        return [row for table in self.tables([*_FATE]) for row in table.filter(condition(table)).to_pylist()]


def _listed(names: Sequence[str | None]) -> str:
    """Names by commas; a record's list may hold nulls, which count as warnings too."""
    return ", ".join("null" if name is None else name for name in names)


class _Nearest:
    """The rows with the smallest distances seen so far."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[tuple[float, dict[str, Any]]] = []

    def add(self, table: pa.Table, distances: np.ndarray) -> None:
        order = np.argsort(distances, kind="stable")[: self._count]
        chosen = order[np.isfinite(distances[order])]
        rows = table.take(pa.array(chosen)).to_pylist()
        self._found += zip(distances[chosen].tolist(), rows, strict=True)
        self._found = sorted(self._found, key=lambda pair: pair[0])[: self._count]

    def rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self._found]


def hosts_of(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The host of each URL as it is spelled, in lower case without user name and port; `(none)` where there is none."""
    pattern = r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:@]+)"
    return pc.fill_null(pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, pattern), "host")), "(none)")
