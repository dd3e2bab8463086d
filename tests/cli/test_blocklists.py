import io
import json
from pathlib import Path

import pytest

from cli.main import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "adult/domains": "bad.example\n0.0.0.0odd.example\n",
        "malware/urls": "host.example/page\n",
    }.items():
        (tmp_path / "ut1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ut1" / name).write_text(content)
    return tmp_path / "ut1"


def test_compile_then_lookup_says_which_entry_matched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = folder.parent / "index"
    assert run(["blocklists", "compile", str(folder), "--out", str(index)]) == 0
    printed = capsys.readouterr().out
    assert "1 0.0.0.0name" in printed
    assert "3 entries" in printed
    assert run(["blocklists", "lookup", str(index), "http://www.bad.example/", "good.example"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "http://www.bad.example/: listed",
        "  adult: parent domain bad.example",
        "good.example: not listed",
    ]


def test_lookup_reads_a_folder_and_urls_from_stdin(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("https://host.example/page?a\nmailto:a@bad.example\n"))
    assert run(["blocklists", "lookup", str(folder), "-", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["matches"] == [{"entry": "https://host.example/page", "kind": "address", "categories": ["malware"]}]
    assert second == {"url": "mailto:a@bad.example", "verdict": "bad_url", "matches": []}


def test_compile_takes_only_the_categories_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(folder.parent / "index")
    assert run(["blocklists", "compile", str(folder), "--out", index, "--categories", "porn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["categories"] == ["adult"]


def test_an_unknown_category_is_refused_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = folder.parent / "index"
    assert run(["blocklists", "compile", str(folder), "--out", str(index), "--categories", "adlt"]) == 1
    assert "error: " in (said := capsys.readouterr().err)
    assert "hint: categories there: adult, malware" in said
    assert not index.exists()


@pytest.mark.parametrize(("out", "problem"), [("", "is a folder"), ("file/index", "which is a file")])
def test_an_index_that_cannot_be_written_is_refused_before_the_lists_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, problem: str
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["blocklists", "compile", str(tmp_path / "no lists"), "--out", str(tmp_path / out)]) == 1
    assert problem in capsys.readouterr().err


def test_fetch_refuses_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["blocklists", "fetch", "--source", "http://a.example/x", "--out", str(tmp_path / "ut1")]) == 1
    assert "not an https address" in capsys.readouterr().err
