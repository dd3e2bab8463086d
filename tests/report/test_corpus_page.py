"""The page of one corpus says what its ledger says, and shows hostile text as text."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tokenizers import BertWordPieceTokenizer

from cli.main import run
from oscar_prep.manifest import read_manifest
from report.corpus_page import corpus_page
from report.document import Histogram, Report, Table
from report.page import page

HOSTILE = "<script>alert('page')</script> & <img src=x onerror=alert(1)> plain words of a page "


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator([HOSTILE], vocab_size=120, show_progress=False)
    (folder / "tokenizer").mkdir()
    trained.save(str(folder / "tokenizer" / "tokenizer.json"))
    records: list[Any] = []
    for n in range(60):
        metadata: dict[str, Any] = {"harmful_pp": None if n % 10 == 9 else 0.7 * 1.3**n}
        metadata["quality_warnings"] = ["tiny"] if n % 7 == 3 else None
        metadata["categories"] = ["adult"] if n % 11 == 4 else None
        url = f"https://host{n % 4}.example/<script>{n}</script>"
        headers = {"warc-target-uri": url, "warc-record-id": f"<urn:uuid:{n}>"}
        records.append({"content": HOSTILE * (1 + n % 5), "warc_headers": headers, "metadata": metadata})
    lines = [json.dumps(record) for record in records] + ["broken"]
    (folder / "in").mkdir()
    (folder / "in" / "<b>pages.jsonl").write_text("\n".join(lines) + "\n")
    options = ["--sequence-length", "16", "--validation-samples", "0", "--max-bad-share", "0.1", "--quiet"]
    out = ["--out", str(folder / "corpus"), "--tokenizer", str(folder / "tokenizer"), "--workers", "1"]
    assert run(["prepare", str(folder / "in"), *out, *options]) == 3
    return folder / "corpus"


@pytest.fixture(scope="module")
def report(corpus: Path) -> Report:
    return corpus_page(corpus, corpus.parent / "in", "symbert prepare …")


def table(report: Report, name: str) -> Table:
    (found,) = [table for table in report.tables() if table.name == name]
    return found


def histogram(report: Report, name: str) -> Histogram:
    (found,) = [chart for chart in report.charts() if chart.name == name]
    assert isinstance(found, Histogram)
    return found


def test_every_figure_of_the_page_is_the_ledgers(corpus: Path, report: Report) -> None:
    ledger = read_manifest(corpus)["ledger"]
    facts = {fact.label: fact.value for fact in report.facts}
    assert facts["documents kept"] == f"{ledger['kept']:,}"
    assert facts["tokens"] == f"{ledger['tokens']:,}"
    assert facts["train samples"] == f"{ledger['samples']['train']:,}"
    reasons = {row[0]: row[1:] for row in table(report, "corpus").rows}
    for rule, spoken in (("blocklist", "blocklist"), ("harmful_pp", "harmful perplexity")):
        assert reasons[spoken][0] == ledger["dropped"][rule] > 0
        assert reasons[spoken][2:] == [ledger["alone"][rule], ledger["bytes"][rule]]
    assert reasons["broken lines"][0] == ledger["invalid"] == 1
    overlaps = {str(row[0]).replace(" + ", "+"): row[1] for row in table(report, "overlaps").rows}
    assert overlaps == ledger["overlaps"]
    assert sum(row[2] for row in table(report, "overlaps").rows) == pytest.approx(1.0)  # type: ignore[misc]
    hosts = table(report, "hosts").rows
    assert sum(row[1] for row in hosts) == sum(ledger["dropped"].values())  # type: ignore[misc]
    assert sum(row[2] for row in hosts) == ledger["kept"]  # type: ignore[misc]


@pytest.mark.parametrize(("name", "missing"), [("harmful-pp", 6), ("lengths", 0)])
def test_every_document_is_in_one_bin_of_a_histogram(corpus: Path, report: Report, name: str, missing: int) -> None:
    ledger = read_manifest(corpus)["ledger"]
    kept, by_score, others = (sum(part.counts) for part in histogram(report, name).parts)
    assert kept == ledger["kept"]
    assert kept + by_score + others + missing == ledger["documents"] - ledger["invalid"] == 60
    if not missing:
        assert by_score == ledger["dropped"]["harmful_pp"]


def test_the_thresholds_stand_in_the_histogram(report: Report) -> None:
    assert [threshold.x for threshold in histogram(report, "harmful-pp").thresholds] == [5.0, 100_000.0]


def test_a_corpus_without_scores_has_no_histogram_of_them(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"content": HOSTILE * 9}) + "\n")
    fixed = ["--tokenizer", str(corpus.parent / "tokenizer"), "--workers", "1", "--quiet", "--no-report"]
    command = ["prepare", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "c"), "--missing-harmful-pp", "keep"]
    assert run([*command, *fixed, "--sequence-length", "16", "--validation-samples", "0"]) == 0
    assert "harmful-pp" not in [chart.name for chart in corpus_page(tmp_path / "c").charts()]


def test_documents_of_each_fate_are_shown_with_their_text(report: Report) -> None:
    rows = table(report, "documents").rows
    fates = [str(row[0]).partition(":")[0] for row in rows]
    assert fates == ["kept"] * 3 + ["blocklist"] * 3 + ["harmful_pp"] * 3 + ["quality_warnings"] * 3
    assert all(str(row[2]).startswith("<script>alert('page')</script>") for row in rows)


def test_without_its_input_the_page_says_that_text_is_not_shown(corpus: Path) -> None:
    found = table(corpus_page(corpus), "documents")
    assert {row[2] for row in found.rows} == {""}
    assert found.notes == ["No text is shown, since the input was not given."]


def test_a_changed_input_is_said_once_and_its_text_not_shown(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "<b>pages.jsonl").write_text("other\n")
    found = table(corpus_page(corpus, tmp_path), "documents")
    (note,) = found.notes
    assert "has changed since the corpus was made" in note


def test_hostile_text_is_shown_and_never_markup(corpus: Path, report: Report) -> None:
    for html in (page(report), (corpus / "report.html").read_text("utf-8")):
        assert "<script" not in html
        assert "<img" not in html
        assert "<b>" not in html
        assert HOSTILE.strip()[:60] in unescape(html)
        assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:src|href)="([^"]*)"', html))


def test_prepare_writes_the_page_unless_told_not_to(corpus: Path, tmp_path: Path) -> None:
    assert (corpus / "report.html").is_file()
    fixed = ["--tokenizer", str(corpus.parent / "tokenizer"), "--workers", "1", "--max-bad-share", "0.1", "--quiet"]
    command = ["prepare", str(corpus.parent / "in"), "--out", str(tmp_path / "c"), *fixed, "--no-report"]
    assert run([*command, "--sequence-length", "16", "--validation-samples", "0"]) == 3
    assert (tmp_path / "c" / "README.md").is_file()
    assert not (tmp_path / "c" / "report.html").exists()


@pytest.mark.shared
@pytest.mark.slow
def test_the_page_of_the_shared_corpus_has_its_ledgers_figures(shared: Path, tmp_path: Path) -> None:
    source = shared / "oscar2301" / "en_meta"
    out = ["--out", str(tmp_path / "c"), "--tokenizer", str(shared / "bert-base-uncased"), "--quiet"]
    assert run(["prepare", str(source), *out, "--validation-samples", "0"]) == 0
    html = (tmp_path / "c" / "report.html").read_text("utf-8")
    for figure in ("11,059", "6,175", "462", "309", "4,113", "17,966,769", "35,088", "1,713"):
        assert figure in html
    report = corpus_page(tmp_path / "c", source)
    kept, by_score, _ = (sum(part.counts) for part in histogram(report, "lengths").parts)
    assert (kept, by_score) == (6_175, 309)
    assert sum(row[1] for row in table(report, "overlaps").rows) == 462 + 309 + 4_113  # type: ignore[misc]
