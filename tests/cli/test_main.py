import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cli import main as command_line
from cli.main import run
from durable.errors import DurableError, with_hint
from tests.corpora import write_corpus

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepair"], "error: no such command 'prepair'"),
        (["env", "--jason"], "error: no such option: --jason"),
        (["env", "extra"], "error: got unexpected extra argument"),
        (["prepare", "shards"], "error: missing option '--out'"),
        (["prepare", "shards", "--out", ""], "error: '--out' is empty"),
        (["pretrain", "--data=", "--out", "run"], "error: '--data' is empty"),
        (["pretrain", "--data", "corpus", "--recipe", ""], "error: '--recipe' is empty"),
        (["verify", ""], "error: an argument is empty"),
        ([""], "error: an argument is empty"),
        (["push", "folder", "--repo", "a b/c", "--dry-run"], "error: invalid value for '--repo': Repo id must use"),
        (["push", "folder", "--repo", "abc", "--dry-run"], "error: invalid value for '--repo': abc is not OWNER/NAME"),
    ],
)
def test_a_wrong_command_line_is_an_error_and_a_hint_with_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(message)
    assert "\nhint: symbert" in output.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage: symbert" in "".join(capsys.readouterr())


def test_our_refusals_become_error_and_hint_and_others_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    @app.command()
    def refuse() -> None:
        raise with_hint(DurableError("corpus/manifest.json is missing"), "symbert prepare")

    @app.command()
    def fail() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(command_line, "app", app)
    assert run(["refuse"]) == 1
    assert capsys.readouterr().err == "error: corpus/manifest.json is missing\n\nhint: symbert prepare\n"
    with pytest.raises(ValueError, match="a bug"):
        run(["fail"])


def test_a_full_disk_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    @app.command()
    def write() -> None:
        raise OSError(28, "No space left on device", "out/shard")

    monkeypatch.setattr(command_line, "app", app)
    assert run(["write"]) == 1
    assert capsys.readouterr().err == "error: out/shard: No space left on device\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "--out", "{file}/x"],
        ["export", "{folder}", "--out", "{file}/x"],
        ["tokenizer", "train", "{shards}", "--out", "{file}/x"],
        ["demo", "--out", "{file}/x"],
        [
            "pretrain",
            "--data",
            "{corpus}",
            "--size",
            "small",
            "--operator",
            "original",
            "--out",
            "{file}/x",
            "--dry-run",
        ],
        ["pretrain", "--data", "{corpus}", "--size", "small", "--operator", "original", "--out", "{long}", "--dry-run"],
        ["prepare", "{shards}", "--tokenizer", "{corpus}/tokenizer", "--out", "{long}"],
        ["prepare", "{shards}", "--tokenizer", "{corpus}/tokenizer", "--out", "{file}/x"],
    ],
    ids=" ".join,
)
def test_an_out_that_cannot_be_is_one_line_and_exit_code_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/part_1.jsonl").write_text('{"content": "some words"}\n')
    write_corpus(tmp_path / "corpus")
    places = {name: tmp_path / name for name in ("file", "folder", "shards", "corpus")}
    assert run([word.format(long=tmp_path / ("a" * 300), **places) for word in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "file", "shards"]


def test_a_missing_file_that_nobody_named_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    @app.command()
    def read(path: Path, below: str = "") -> None:
        (path / below).read_bytes()

    monkeypatch.setattr(command_line, "app", app)
    assert run(["read", f"{tmp_path / 'absent'}"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: No such file or directory\n"
    with pytest.raises(FileNotFoundError):
        run(["read", str(tmp_path), "--below", "absent"])


def test_env_prints_versions_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env"]) == 0
    assert "transformers" in capsys.readouterr().out
    assert run(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["python"].startswith("3.")


def test_python_dash_m_cli_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("symbert ")
