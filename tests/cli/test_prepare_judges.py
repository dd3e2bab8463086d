"""`symbert prepare` where the records themselves say little, as a user types it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.main import run

TEXT = "Is this not quite certainly an English sentence of some length?\n"


@pytest.fixture
def pages(tmp_path: Path) -> list[dict[str, Any]]:
    """A foreign corpus: text and url, nothing else; every third page is on a listed host."""
    (tmp_path / "ut1" / "adult").mkdir(parents=True)
    (tmp_path / "ut1" / "adult" / "domains").write_text("bad.example\n")
    hosts = ("good.example", "www.bad.example", "other.example")
    return [{"text": f"{n} {TEXT}" * 4, "url": f"http://{hosts[n % 3]}/{n}"} for n in range(30)]


def prepare(tmp_path: Path, source: Path, *options: object) -> int:
    fixed = ["--out", tmp_path / "corpus", "--tokenizer", tmp_path / "tokenizer", "--workers", 1]
    fields = ["--content-field", "text", "--url-field", "url", "--missing-harmful-pp", "keep"]
    small = ["--sequence-length", 16, "--validation-samples", 0, "--json", "--quiet"]
    return run([str(argument) for argument in ["prepare", source, *fixed, *fields, *small, *options]])


@pytest.fixture
def tokenizer(tmp_path: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator([TEXT], vocab_size=120, show_progress=False)
    (tmp_path / "tokenizer").mkdir()
    trained.save(str(tmp_path / "tokenizer" / "tokenizer.json"))


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_foreign_corpus_is_judged_by_a_compiled_index(
    tmp_path: Path, pages: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], form: str
) -> None:
    source, index = tmp_path / f"pages.{form}", tmp_path / "index"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(pages), source)
    else:
        source.write_text("".join(json.dumps(page) + "\n" for page in pages))
    assert run(["blocklists", "compile", str(tmp_path / "ut1"), "--out", str(index)]) == 0
    capsys.readouterr()
    assert prepare(tmp_path, source, "--blocklists", index, "--drop-categories", "adult") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["documents"], summary["kept"], summary["bad_url"]) == (30, 20, 0)
    assert summary["dropped"] == {"blocklist": 10, "harmful_pp": 0, "quality_warnings": 0}


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--missing-harmful-pp", "score"], "needs a KenLM model"),
        (["--kenlm", "en.arpa"], "would score nothing"),
        (["--rescore"], "nothing to judge by"),
        (["--language-model", "lid.176.bin"], "would judge nothing"),
        (["--min-language-probability", "0.9"], "needs --language"),
        (["--language", "en", "--language-model", "nowhere"], "nowhere does not exist"),
        (["--content-field", "url"], "two purposes"),
        (["--blocklists", "pages.jsonl", "--drop-categories", "adult"], "does not exist"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(
    tmp_path: Path,
    pages: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    assert prepare(tmp_path, tmp_path / "pages.jsonl", *options) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: ")
    assert message in said[0]
    assert not (tmp_path / "corpus" / "manifest.json").exists()
