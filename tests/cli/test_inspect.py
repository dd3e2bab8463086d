"""`symbert inspect` and `symbert thresholds` as a user types them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import BertWordPieceTokenizer

from cli.main import run

TEXT = "a page of plain words for the test "


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator([TEXT], vocab_size=80, show_progress=False)
    (folder / "tokenizer").mkdir()
    trained.save(str(folder / "tokenizer" / "tokenizer.json"))
    records = [
        {
            "content": f"{n} {TEXT}",
            "warc_headers": {"warc-target-uri": f"https://{'bad' if n % 4 == 0 else 'good'}.example/{n}"},
            "metadata": {"harmful_pp": float(n) + 0.5},
        }
        for n in range(20)
    ]
    (folder / "pages.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ["--sequence-length", "16", "--validation-samples", "0", "--quiet", "--workers", "1"]
    out = ["--out", str(folder / "corpus"), "--tokenizer", str(folder / "tokenizer")]
    assert run(["prepare", str(folder / "pages.jsonl"), *out, *options]) == 0
    return folder / "corpus"


PREPARED = ["--sequence-length", "16", "--validation-samples", "0", "--quiet", "--workers", "1"]


def prepared(corpus: Path, inputs: Path, *options: str) -> Path:
    """A corpus of `inputs` with the tokenizer of `corpus`."""
    out = inputs.parent / "corpus"
    tokenizer = ["--tokenizer", str(corpus / "tokenizer")]
    assert run(["prepare", str(inputs), "--out", str(out), *tokenizer, *PREPARED, *options]) == 0
    return out


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_sample_is_shown_document_by_document(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = asked(capsys, "inspect", corpus, "--sample", 1)["pieces"]
    assert len(pieces) == 2
    assert run(["inspect", str(corpus), "--sample", "1"]) == 0
    printed = capsys.readouterr().out
    for piece in pieces:
        assert piece["document"]["url"] in printed
        assert piece["text"] in printed


def test_a_url_tells_its_fate_and_its_text(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inspect", str(corpus), "--url", "https://bad.example/4", "--input", str(corpus.parent)]
    (document,) = asked(capsys, *arguments)["documents"]
    assert (document["kept"], document["text"], document["problem"]) == (False, f"4 {TEXT}", None)
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "pages.jsonl line 5): dropped by harmful_pp" in printed
    assert "harmful_pp: 4.5; wanted 5 < harmful_pp < 100000" in printed


def test_documents_on_both_sides_of_a_threshold_are_shown(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = asked(capsys, "inspect", corpus, "--near", "harmful_pp=5", "--count", 2)
    assert [document["harmful_pp"] for document in sides["harmful_pp below 5"]] == [4.5, 3.5]
    assert [document["harmful_pp"] for document in sides["harmful_pp from 5"]] == [5.5, 6.5]
    assert run(["inspect", str(corpus), "--near", "harmful_pp=5"]) == 0
    assert "harmful_pp below 5:" in capsys.readouterr().out


def test_the_hosts_that_lost_most_are_ranked(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = asked(capsys, "inspect", corpus, "--top-dropped")
    assert [(host["host"], host["dropped"], host["kept"]) for host in hosts] == [
        ("good.example", 3, 12), ("bad.example", 2, 3),
    ]  # fmt: skip
    assert run(["inspect", str(corpus), "--top-dropped", "--count", "1"]) == 0
    assert "bad.example" not in capsys.readouterr().out


def test_thresholds_print_a_funnel_each(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "thresholds", corpus, "--min-harmful-pp", "3,5,10")
    assert [(funnel["minimum"], funnel["kept"], funnel["exact"]) for funnel in found] == [
        (3.0, 17, False), (5.0, 15, True), (10.0, 10, True),
    ]  # fmt: skip
    assert run(["thresholds", str(corpus), "--min-harmful-pp", "3"]) == 0
    assert "≈" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "--sample", "999"], "has no train sample 999"),
        (["inspect", "--url", "https://absent.example/"], "has read no document"),
        (["inspect", "--top-dropped", "--input", "nowhere"], "nowhere does not exist"),
        (["thresholds", "--min-harmful-pp", "1e9"], "not below the corpus's upper bound"),
    ],
)
def test_a_question_without_answer_is_refused_in_one_line(
    corpus: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    capsys.readouterr()
    assert run([arguments[0], str(corpus), *arguments[1:]]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[0]


@pytest.mark.parametrize(
    "command", [["inspect", "--sample", "0"], ["thresholds"], ["report", "--corpus"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("file", "kept", "problem"),
    [
        ("train/*.arrow", 500, "has 500 bytes"),
        ("documents/*.parquet", 2, "has 2 bytes"),
        ("documents/*", None, "missing"),
    ],
)
def test_a_corpus_that_is_not_whole_is_refused(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    file: str,
    kept: int | None,
    problem: str,
) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    (damaged,) = (tmp_path / "corpus").glob(file)
    if kept is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:kept])
    out = ["--out", str(tmp_path / "page.html")] if command[0] == "report" else []
    assert run([*command, str(tmp_path / "corpus"), *out]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {damaged} ")
    assert problem in error
    assert not (tmp_path / "page.html").exists()


def test_a_file_is_no_corpus_folder(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(corpus / "manifest.json")]) == 1
    assert "manifest.json is a file, expected a corpus folder" in capsys.readouterr().err


def test_a_question_is_asked_for(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(corpus)]) == 2
    assert capsys.readouterr().err.startswith("error: asked for nothing, expected one thing to look at\n")


NULLS: list[dict[str, Any]] = [
    {"quality_warnings": [None]},
    {"quality_warnings": [None, "tiny"]},
    {"annotation": [None]},
    {"categories": [None, "adult"]},
    {"categories": [None]},
    {"quality_warnings": [], "categories": []},
]


@pytest.mark.parametrize("warnings", ["all", "tiny"])
def test_nulls_in_lists_of_a_record_are_shown_by_pages_and_questions(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], warnings: str
) -> None:
    records = [
        {
            "content": f"{n} {TEXT}",
            "warc_headers": {"warc-target-uri": None if n == 1 else f"https://a.example/{n}"},
            "metadata": {"harmful_pp": 9.0 + n, **metadata},
        }
        for n, metadata in enumerate(NULLS)
    ]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    made = prepared(corpus, tmp_path / "pages.jsonl", "--drop-warnings", warnings)
    dropped = {"all": ["null", "null, tiny", "null", "adult"], "tiny": [None, "tiny", None, "adult"]}[warnings]
    found = asked(capsys, "inspect", made, "--near", "harmful_pp=5")["harmful_pp from 5"]
    assert [next((rule["value"] for rule in document["failing"]), None) for document in found] == [*dropped, None, None]
    assert run(["inspect", str(made), "--url", "https://a.example/3"]) == 0
    assert "blocklist: adult; wanted" in capsys.readouterr().out
    assert run(["inspect", str(made), "--near", "harmful_pp=5"]) == 0
    printed = capsys.readouterr().out
    assert "no URL (pages.jsonl line 2)" in printed
    assert "None" not in printed
    page = (made / "report.html").read_text("utf-8")
    assert all(f": {value}<" in page for value in dropped if value)


def test_scores_of_parquet_that_are_no_numbers_are_null_in_json(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [float("nan"), float("inf"), float("-inf"), 50.0]
    rows = [
        {
            "content": f"{n} {TEXT}",
            "warc_headers": {"warc-target-uri": f"https://a.example/{n}"},
            "metadata": {"harmful_pp": score},
        }
        for n, score in enumerate(scores)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pages.parquet")
    made = prepared(corpus, tmp_path / "pages.parquet", "--missing-harmful-pp", "keep")
    shown = [
        asked(capsys, "inspect", made, "--url", f"https://a.example/{n}")["documents"][0] for n in range(len(scores))
    ]
    assert [document["harmful_pp"] for document in shown] == [None, None, None, 50.0]
    assert [document["kept"] for document in shown] == [True, False, False, True]
    assert shown[1]["failing"][0]["value"] == "inf"
    pieces = asked(capsys, "inspect", made, "--sample", 0)["pieces"]
    assert pieces[0]["document"]["harmful_pp"] is None


def test_what_a_terminal_would_obey_is_shown_and_not_sent(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J"
    records = [
        {
            "content": f"{n} {TEXT}{hostile}",
            "warc_headers": {"warc-target-uri": f"https://{hostile}.example/\n{n}{hostile}"},
            "metadata": {"harmful_pp": 3.0 + n, "quality_warnings": [hostile] if n == 1 else None},
        }
        for n in range(8)
    ]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"pages{hostile}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    made = prepared(corpus, tmp_path / "in")
    capsys.readouterr()
    for question in (["--near", "harmful_pp=5"], ["--top-dropped"], ["--sample", "0"]):
        more = [] if question[0] == "--sample" else ["--input", str(tmp_path / "in")]
        assert run(["inspect", str(made), *question, *more]) == 0
        printed = capsys.readouterr().out
        assert "\\x1b]0;owned\\x07\\x9b2j" in printed.lower()
        assert not set(hostile) & set(printed) & set("\x1b\x07\x9b")
        assert "example/\n" not in printed
    for page in ("README.md", "report.html"):
        assert not {"\x1b", "\x07", "\x9b"} & set((made / page).read_text("utf-8"))
    path.unlink()
    assert run(["prepare", str(tmp_path / "in"), "--out", str(made), "--tokenizer", str(corpus / "tokenizer")]) == 1
    assert "\x1b" not in capsys.readouterr().err
    assert run(["inspect", str(made), "--url", f"https://a.example/{hostile}"]) == 1
    assert "\x1b" not in capsys.readouterr().err
