"""The corpus section: what came in, what each rule dropped, what was packed, and that the sums close."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from durable.checked import Shape, checked
from oscar_prep.manifest import read_manifest
from oscar_prep.plan import MANIFEST, MANIFEST_AGAIN
from report.document import Bar, BarChart, Block, Charts, Column, Paragraph, Section, Table, Value, count, percent
from report.errors import ReportError

if TYPE_CHECKING:  # it brings the whole of scipy along, for metrics of GLUE
    from report.runs import Run

SHARE = percent(1)


class _Ledger(Shape):
    documents: int = Field(ge=0)
    kept: int = Field(ge=0)
    invalid: int = Field(ge=0)
    tokens: int = Field(ge=0)
    tail: int = Field(ge=0)
    dropped: dict[str, int]
    samples: dict[str, int]
    alone: dict[str, int] = Field(default_factory=dict)
    bytes: dict[str, int] = Field(default_factory=dict)


class _Tokenizer(Shape):
    name: str
    sha256: str


class _Split(Shape):
    rows: int


class _Unit(Shape):
    file: str
    input: dict[str, Any]


class _Manifest(Shape):
    """What the section and the page of a corpus show."""

    corpus_hash: str
    sequence_length: int = Field(gt=0)
    configuration: dict[str, Any]
    tokenizer: _Tokenizer
    splits: dict[str, _Split]
    units: list[_Unit]
    ledger: _Ledger


def read_corpus(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus folder, checked to hold what the section shows.

    Raises PrepareError if the folder is no finished corpus, ReportError if its manifest is damaged.
    """
    manifest = read_manifest(folder)
    checked(_Manifest, manifest, folder / MANIFEST, ReportError, MANIFEST_AGAIN)
    return manifest


def corpus_section(manifest: Mapping[str, Any], runs: Sequence["Run"] = ()) -> Section:
    """The funnel and the ledger, and which of the runs were trained on another corpus."""
    ledger = manifest["ledger"]
    documents, kept = ledger["documents"], ledger["kept"]
    blocks: list[Block] = [
        Paragraph(
            f"{kept:,} of {documents:,} documents were kept ({SHARE(kept / documents)} %). A document is dropped for "
            "the first rule that it fails, in the order of the chart."
            if documents
            else "The corpus read no document."
        ),
        Charts([_funnel(ledger)]),
        _reasons(ledger),
        _tokens(manifest),
        Paragraph(
            f"Corpus hash {manifest['corpus_hash']}: the sha256 over all shards; the same input and settings "
            "give the same hash, whatever the number of workers."
        ),
    ]
    strangers = [run.name for run in runs if run.corpus != manifest["corpus_hash"]]
    if strangers:
        blocks.insert(0, Paragraph(f"Not trained on this corpus, but on another: {', '.join(strangers)}."))
    return Section("corpus", "Corpus", blocks)


def _funnel(ledger: Mapping[str, Any]) -> BarChart:
    """Each dropped bar begins where what is left ends, so that the eye follows the loss."""
    documents = ledger["documents"]
    bars = [Bar("read", documents, f"{documents:,}", "total")]
    left = documents
    for reason, dropped in _dropped(ledger).items():
        left -= dropped
        if dropped or reason != "invalid":
            bars.append(Bar(_spoken(reason), dropped, f"−{dropped:,}" if dropped else "0", "dropped", start=left))
    bars.append(Bar("kept", ledger["kept"], f"{ledger['kept']:,}", "kept"))
    told = ", ".join(f"{dropped:,} by {_spoken(reason)}" for reason, dropped in _dropped(ledger).items())
    description = (
        f"Bar chart of the corpus funnel: {documents:,} documents read, dropped {told}; {ledger['kept']:,} kept."
    )
    return BarChart("funnel", "From the documents read to the documents kept", description, "documents", bars)


def _dropped(ledger: Mapping[str, Any]) -> dict[str, int]:
    """Reasons in the order in which the rules are asked, then lines that are no documents."""
    order = ("blocklist", "harmful_pp", "quality_warnings", "language")
    dropped = ledger["dropped"]
    reasons = sorted(dropped, key=lambda reason: (order.index(reason) if reason in order else len(order), reason))
    return {**{reason: dropped[reason] for reason in reasons}, "invalid": ledger["invalid"]}


def _spoken(reason: str) -> str:
    return reason.replace("_", " ").replace("harmful pp", "harmful perplexity").replace("invalid", "broken lines")


def _reasons(ledger: Mapping[str, Any]) -> Table:
    documents = ledger["documents"]
    columns = [
        Column("reason", "rule"),
        Column("documents", "dropped", count),
        Column("share", "% of all", SHARE),
        Column("alone", "would drop alone", count),
        Column("bytes", "bytes", count),
    ]
    alone, sizes = ledger.get("alone", {}), ledger.get("bytes", {})
    rows: list[list[Value]] = [
        [_spoken(reason), dropped, dropped / documents if documents else None, alone.get(reason), sizes.get(reason)]
        for reason, dropped in _dropped(ledger).items()
    ]
    rows.append(["kept", ledger["kept"], ledger["kept"] / documents if documents else None, None, sizes.get("kept")])
    total = ledger["kept"] + sum(_dropped(ledger).values())
    verdict = "closes" if total == documents else "does NOT close"
    note = f"The ledger {verdict}: kept + dropped + broken lines = {total:,}; read {documents:,}."
    return Table("corpus", "Documents by the first rule that they fail", columns, rows, [note])


def _tokens(manifest: Mapping[str, Any]) -> Table:
    ledger, length = manifest["ledger"], manifest["sequence_length"]
    samples = ledger["samples"]
    names = ("train", "validation", "surplus")
    rows: list[list[Value]] = [
        [f"{name} samples", samples.get(name, 0), length * samples.get(name, 0)] for name in names
    ]
    rows += [["tails", None, ledger["tail"]], ["all", sum(samples.values()), ledger["tokens"]]]
    total = length * sum(samples.values()) + ledger["tail"]
    verdict = "closes" if total == ledger["tokens"] else "does NOT close"
    notes = [
        f"The ledger {verdict}: {length} tokens a sample × {sum(samples.values()):,} samples + {ledger['tail']:,} "
        f"tokens after the last full sample of a stream = {total:,}; tokenized {ledger['tokens']:,}.",
        "Surplus is what the validation stream held beyond the samples asked for; it is in no split.",
    ]
    columns = [Column("part", ""), Column("samples", "samples", count), Column("tokens", "tokens", count)]
    return Table("corpus-tokens", "Tokens and samples", columns, rows, notes)
