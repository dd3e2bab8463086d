"""A stdout that lacks a character gets `?` for it; no command ends with an error for it, and no JSON loses one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oscar_prep.conftest import oscar, tokenizer_folder, write_shard  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ALONE = ["--workers", "1", "--no-report", "--quiet"]
NARROW = [
    {"PYTHONIOENCODING": "latin-1"},
    pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
    pytest.param(PLAIN_LOCALE, marks=pytest.mark.slow),
]


def symbert(*arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    return subprocess.run(command, cwd=ROOT, env={**kept, **environment}, capture_output=True, check=False)


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer_folder: Path,  # noqa: F811
    oscar: Callable[..., object],  # noqa: F811
    write_shard: Callable[..., Path],  # noqa: F811
) -> list[str]:
    """The command that makes one; its summary ends with an ellipsis."""
    folder = tmp_path_factory.mktemp("encoding")
    write_shard(folder / "part.jsonl", [oscar("the café → the fox " * 20, number) for number in range(8)])
    options = ["--sequence-length", "16", "--validation-samples", "0"]
    return ["prepare", str(folder / "part.jsonl"), "--tokenizer", str(tokenizer_folder), *options]


@pytest.mark.slow
@pytest.mark.parametrize("environment", NARROW)
def test_prepare_and_inspect_end_well_where_stdout_lacks_a_character(
    corpus: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    ended = symbert(*corpus, *ALONE, "--out", tmp_path / "out", environment=environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"? in " in ended.stdout.splitlines()[-1]
    ended = symbert("inspect", tmp_path / "out", "--sample", "0", environment=environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.startswith(b"?? tokens 0 to 15")


@pytest.mark.parametrize("environment", NARROW)
def test_help_that_is_not_ascii_is_shown(environment: dict[str, str]) -> None:
    ended = symbert("glue", "--help", environment=environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "each 1/√2 of".encode() in symbert("glue", "--help", environment={"PYTHONIOENCODING": "utf-8"}).stdout
    assert b"each 1/" in ended.stdout


@pytest.mark.parametrize("environment", NARROW)
def test_an_error_names_what_it_can(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = symbert("status", tmp_path / "→", environment=environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: ")


@pytest.mark.slow
def test_utf_8_is_written_as_it_is(corpus: list[str], tmp_path: Path) -> None:
    ended = symbert(*corpus, *ALONE, "--out", tmp_path / "out", environment={"PYTHONIOENCODING": "utf-8"})
    assert "… in " in ended.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_loses_no_character(corpus: list[str], tmp_path: Path, encoding: str) -> None:
    command = ["tokenizer", "train", corpus[1], "--out", str(tmp_path / "é → x"), "--vocabulary-size", "60", "--json"]
    ended = symbert(*command, environment={"PYTHONIOENCODING": encoding})
    assert ended.returncode == 0
    assert json.loads(ended.stdout.decode("utf-8"))["tokenizer"] == str(tmp_path / "é → x")


def test_what_a_command_starts_shows_what_can_be_shown_too() -> None:
    code = """if True:
        import subprocess, sys
        from multiprocessing import get_context
        from cli.console import show_what_can_be_shown
        if __name__ == "__main__":
            show_what_can_be_shown()
            subprocess.run([sys.executable, "-c", "print(chr(8230))"], check=True)
            process = get_context("forkserver").Process(target=print, args=(chr(8594),), kwargs={"flush": True})
            process.start()
            process.join()
            sys.exit(process.exitcode)"""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"?\n?\n", b"")


@pytest.mark.slow
def test_a_script_is_not_printed_with_other_names_in_it(corpus: list[str], tmp_path: Path) -> None:
    out = tmp_path / "→"
    command = ["slurm", *corpus, "--out", out]
    narrow = {"PYTHONIOENCODING": "latin-1"}
    ended = symbert(*command, environment=narrow)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"error: the script holds characters that stdout has not, which is iso8859-1" in ended.stderr
    assert b"hint: --script FILE" in ended.stderr
    assert symbert(*command, "--script", tmp_path / "submit.sh", environment=narrow).returncode == 0
    assert str(out) in (tmp_path / "submit.sh").read_text("utf-8")
