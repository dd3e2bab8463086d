"""The page of one corpus: funnel, overlap of rules, scores and lengths, hosts, and documents to look at."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from oscar_prep.errors import PrepareError
from oscar_prep.provenance import Corpus
from oscar_prep.reopen import InputFiles
from report.corpus import corpus_section, read_corpus
from report.document import (
    Block,
    Charts,
    Column,
    Commands,
    Definitions,
    Fact,
    Histogram,
    Paragraph,
    Part,
    Report,
    Section,
    Table,
    Threshold,
    Value,
    count,
    percent,
)  # fmt: skip

HOSTS = 15
SHOWN_PER_FATE = 3
SHOWN_CHARACTERS = 280
# Eight bins to the factor of ten; OSCAR's scores and the lengths of pages lie well inside.
SCORE_EDGES = tuple(float(10 ** (step / 8)) for step in range(8 * 6 + 1))
LENGTH_EDGES = tuple(float(10 ** (step / 8)) for step in range(8, 8 * 7 + 1))
FATES = ("kept", "dropped by harmful_pp", "dropped by another rule")
STYLES = ("kept", "dropped", "total")


@dataclass
class Statistics:
    """Counts over all documents, by fate (kept, dropped for harmful_pp, dropped for another rule)."""

    scores: np.ndarray = field(default_factory=lambda: np.zeros((len(FATES), len(SCORE_EDGES) - 1), np.int64))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros((len(FATES), len(LENGTH_EDGES) - 1), np.int64))
    without_score: int = 0

    @classmethod
    def of(cls, corpus: Corpus) -> "Statistics":
        """Read documents/*.parquet, a unit at a time."""
        statistics = cls()
        for table in corpus.tables(["reason", "harmful_pp", "bytes"]):
            reasons = table["reason"].cast("string")
            by_score = pc.fill_null(pc.equal(reasons, "harmful_pp"), False).to_numpy()
            fates = np.where(reasons.is_null().to_numpy(), 0, np.where(by_score, 1, 2))
            scores = table["harmful_pp"].to_numpy().astype(np.float64)
            scored = ~np.isnan(scores)
            statistics.without_score += int((~scored).sum())
            for fate in range(len(FATES)):
                statistics.scores[fate] += _binned(scores[scored & (fates == fate)], SCORE_EDGES)
                statistics.lengths[fate] += _binned(table["bytes"].to_numpy()[fates == fate], LENGTH_EDGES)
        return statistics


def corpus_page(folder: Path, inputs: Path | None = None, command: str = "") -> Report:
    """What there is to see of a corpus; with `inputs`, documents that were dropped are shown with their text.

    Raises PrepareError or ReportError if the folder is no finished corpus or a file of it is damaged.
    """
    manifest = read_corpus(folder)
    corpus = Corpus(folder)
    statistics = Statistics.of(corpus)
    ledger = manifest["ledger"]
    facts = [
        Fact("documents kept", f"{ledger['kept']:,}", f"of {ledger['documents']:,}"),
        Fact("tokens", f"{ledger['tokens']:,}", manifest["tokenizer"]["name"]),
        *(
            Fact(f"{name} samples", f"{split['rows']:,}", f"of {manifest['sequence_length']} tokens")
            for name, split in manifest["splits"].items()
        ),
    ]
    sections = [
        corpus_section(manifest),
        _overlap_section(ledger),
        _distribution_section(manifest, statistics),
        _hosts_section(corpus),
        _documents_section(corpus, inputs),
        _record_section(manifest, command),
    ]
    files = len(manifest["units"])
    lead = f"{files:,} input file{'s' * (files != 1)}, filtered, tokenized and packed for masked language modelling."
    return Report("Packed corpus", lead, facts, sections)


def _binned(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    inside = np.clip(values, edges[0], edges[-1])
    return np.histogram(inside, np.asarray(edges))[0]


def _overlap_section(ledger: dict[str, Any]) -> Section:
    dropped = sum(ledger["dropped"].values())
    columns = [
        Column("rules", "fails exactly these rules"),
        Column("documents", "documents", count),
        Column("share", "% of the dropped", percent(1)),
    ]
    ranked = sorted(ledger["overlaps"].items(), key=lambda item: (-item[1], item[0]))
    rows: list[list[Value]] = [[rules.replace("+", " + "), number, number / dropped] for rules, number in ranked]
    table = Table("overlaps", "Dropped documents by all the rules that they fail", columns, rows)
    told = "A rule that drops few documents first may still fail many: the table counts each document once, by the set."
    return Section("overlaps", "Overlap of rules", [Paragraph(told), table])


def _distribution_section(manifest: dict[str, Any], statistics: Statistics) -> Section:
    minimum, maximum = manifest["configuration"]["harmful_pp"]
    scored = int(statistics.scores.sum())
    scores = Histogram(
        "harmful-pp",
        "Harmful perplexity of all documents, by their fate",
        f"Histogram of the harmful perplexity of {scored:,} documents, with the bounds {minimum:g} and {maximum:g}.",
        "harmful perplexity",
        "documents",
        SCORE_EDGES,
        _parts(statistics.scores),
        [Threshold(bound, f"{bound:,g}") for bound in (minimum, maximum) if SCORE_EDGES[0] < bound < SCORE_EDGES[-1]],
    )
    lengths = Histogram(
        "lengths",
        "Length of all documents, by their fate",
        f"Histogram of the length in bytes of {int(statistics.lengths.sum()):,} documents.",
        "bytes of UTF-8",
        "documents",
        LENGTH_EDGES,
        _parts(statistics.lengths),
    )
    fate = "kept" if manifest["configuration"]["missing_harmful_pp"] == "keep" else "dropped"
    told = (
        f"{scored:,} documents have a harmful perplexity; {statistics.without_score:,} have none, and are {fate} by "
        "this rule. Low values read like the harmful pages that the model "
        "was trained on; very high ones are hardly text."
    )
    return Section(
        "distributions", "Scores and lengths", [Paragraph(told), Charts([scores, lengths] if scored else [lengths])]
    )


def _parts(counts: np.ndarray) -> list[Part]:
    return [Part(label, style, numbers.tolist()) for label, style, numbers in zip(FATES, STYLES, counts, strict=True)]


def _hosts_section(corpus: Corpus) -> Section:
    columns = [
        Column("host", "host"),
        Column("dropped", "dropped", count),
        Column("kept", "kept", count),
        Column("reasons", "dropped by"),
    ]
    rows: list[list[Value]] = [
        [
            host.host,
            host.dropped,
            host.kept,
            ", ".join(f"{reason} {number:,}" for reason, number in host.reasons.items()),
        ]
        for host in corpus.top_dropped(HOSTS)
    ]
    return Section(
        "hosts", "Hosts", [Table("hosts", "The hosts with most dropped documents, by the first rule", columns, rows)]
    )


def _documents_section(corpus: Corpus, inputs: Path | None) -> Section:
    """A few documents of each fate, from the smallest input file: to be read, not to be counted."""
    unit = min(corpus.manifest["units"], key=lambda unit: unit["input"]["bytes"])
    fates = (None, *sorted(corpus.manifest["ledger"]["dropped"]))
    shown = [document for fate in fates for document in itertools.islice(corpus.of_fate(unit, fate), SHOWN_PER_FATE)]
    texts, notes = _texts(corpus, inputs, unit["file"], [document["line"] for document in shown])
    rows: list[list[Value]] = []
    for document, text in zip(shown, texts, strict=True):
        failing = corpus.failing(document)
        why = f"{failing[0].rule}: {failing[0].value}" if failing else "kept"
        rows.append([why, f"{document['url'] or 'no URL'} (line {document['line']:,})", _excerpt(text)])
    columns = [
        Column("fate", "fate"),
        Column("document", "document", is_long=True),
        Column("text", "how it begins", is_long=True),
    ]
    table = Table("documents", "Documents kept and dropped", columns, rows, notes)
    blocks: list[Block] = [Paragraph(f"The first {SHOWN_PER_FATE} documents of each fate in {unit['file']}."), table]
    return Section("documents", "Documents", blocks)


def _texts(corpus: Corpus, inputs: Path | None, name: str, lines: list[int]) -> tuple[list[str], list[str]]:
    """The texts of documents of an input file, and notes; without them where they cannot be had."""
    if inputs is None:
        return [""] * len(lines), ["No text is shown, since the input was not given."]
    files = InputFiles(corpus, inputs)
    try:
        return files.texts(name, lines), []
    except PrepareError as error:
        return [""] * len(lines), [str(error)]


def _excerpt(text: str) -> str:
    # White space may be most of a text, but a hundred thousand characters of it are not split for a line or two.
    text = " ".join(text[: 8 * SHOWN_CHARACTERS].split())
    return text[:SHOWN_CHARACTERS] + (" …" if len(text) > SHOWN_CHARACTERS else "")


def _record_section(manifest: dict[str, Any], command: str) -> Section:
    settings = {name: _spoken(value) for name, value in manifest["configuration"].items()}
    hashes = {
        "corpus": manifest["corpus_hash"],
        "tokenizer": manifest["tokenizer"]["sha256"],
        **{name: manifest.get(name) for name in ("blocklists", "kenlm", "language_model")},
    }
    blocks: list[Block] = [
        Definitions("settings", "Settings", settings),
        Definitions("hashes", "Hashes (sha256)", {name: str(value) for name, value in hashes.items() if value}),
    ]
    blocks += [Commands([command])] if command else []
    return Section("record", "How it was made", blocks)


def _spoken(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
