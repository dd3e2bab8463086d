"""`symbert status` tells from the folder alone what is done, running and failed."""

import json
import os
import time
from pathlib import Path

import pytest

from cli.main import run
from durable.board import STATUS, Board, Entry, Failure
from tests.oscar_prep.conftest import oscar, tokenizer_folder, write_shard  # noqa: F401 - fixtures
from tests.oscar_prep.test_corpus_engines import Arguments, arguments, inputs  # noqa: F401 - fixtures


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Four tasks of 100 each: one found done, one done now, one half done, one failed."""
    board = Board(tmp_path)
    (tmp_path / "first").touch()
    board.begin("prepare", "ray", "B", {name: Entry(f"{name}.jsonl", 100, name) for name in NAMES})
    run_file = json.loads((board.folder / "run.json").read_text())
    run_file["since"] = time.time() - 10
    (board.folder / "run.json").write_text(json.dumps(run_file))
    (tmp_path / "second").touch()
    board.fail("fourth", Failure("it is truncated", kind="PrepareError"))
    return board


NAMES = ("first", "second", "third", "fourth")


def shown(out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert run(["status", str(out), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_done_running_failed_rate_and_time_left_come_from_the_board(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    with board.running("third") as note:
        note({"done": 50})
        found = shown(board.out, capsys)
        assert run(["status", str(board.out)]) == 0
    assert (found["tasks"], found["done"], found["waiting"]) == (4, 2, 0)
    assert found["failed"] == {"fourth.jsonl": "it is truncated"}
    (running,) = found["running"]
    assert (running["name"], running["share"], running["pid"]) == ("third.jsonl", 0.5, os.getpid())
    assert found["share"] == 0.625
    assert found["rate"] == pytest.approx(150 / 10, rel=0.2)  # 100 of it were there before
    assert found["seconds_left"] == pytest.approx(10, rel=0.2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prepare (ray): 2 of 4 files done, 62.5%"
    assert " MB a second, " in lines[1]
    assert lines[2].startswith("running  third.jsonl: 50% in 0 s, process ")
    assert lines[3] == "failed   fourth.jsonl: it is truncated"


def test_a_task_that_has_fallen_silent_is_said_to_be(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    with board.running("third"):
        path = board.folder / "running" / "third.json"
        note = json.loads(path.read_text())
        path.write_text(json.dumps({**note, "heard": note["heard"] - 600}))
        assert run(["status", str(board.out)]) == 0
    assert "not heard of for 10 min" in capsys.readouterr().out


def test_no_rate_is_told_while_slices_wait_in_the_queue(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    board.begin("prepare", "slurm", "B", {name: Entry(name, 100, name) for name in NAMES})
    assert shown(board.out, capsys)["rate"] is None
    board.join("0-of-2")
    (board.out / "third").touch()
    assert shown(board.out, capsys)["rate"] is not None


def test_a_corpus_that_failed_says_why_and_one_that_is_finished_says_so(
    tmp_path: Path,
    inputs: Path,  # noqa: F811
    arguments: Arguments,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = (inputs / "part_3.jsonl.zst").read_bytes()
    (inputs / "part_3.jsonl.zst").write_bytes(whole[:-9])
    assert run(arguments(tmp_path / "out", "--workers", "1")) == 1
    capsys.readouterr()
    found = shown(tmp_path / "out", capsys)
    assert (found["command"], found["tasks"], found["done"]) == ("prepare", 8, 7)
    assert "part_3.jsonl.zst" in found["failed"]["part_3.jsonl.zst"]
    (inputs / "part_3.jsonl.zst").write_bytes(whole)
    assert run(arguments(tmp_path / "out", "--workers", "1")) == 0
    assert not (tmp_path / "out" / STATUS).exists()
    capsys.readouterr()
    found = shown(tmp_path / "out", capsys)
    assert (found["done"], found["share"], found["failed"]) == (8, 1.0, {})
    assert run(["status", str(tmp_path / "out"), "--watch"]) == 0


def test_a_training_run_is_read_from_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text("[schedule]\nmax_steps = 1000\n")
    assert shown(tmp_path, capsys)["done"] == 0
    row = {"kind": "train", "step": 250, "tokens": 250 * 4096, "tokens_per_second": 8192.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    found = shown(tmp_path, capsys)
    assert (found["done"], found["share"], found["rate"], found["seconds_left"]) == (250, 0.25, 2.0, 375.0)


@pytest.mark.parametrize("there", [True, False])
def test_another_folder_is_refused(tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", str(tmp_path if there else tmp_path / "gone")]) == 1
    assert "is no output folder of symbert" in capsys.readouterr().err


def test_a_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "s3://bucket/corpus"]) == 1
    said = capsys.readouterr().err
    assert "error: s3://bucket/corpus is a URL, expected a folder" in said
    assert "hint: give the folder of --staging" in said


def test_watching_prints_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", str(tmp_path), "--watch", "--json"]) == 2
    said = capsys.readouterr()
    assert "'--watch': --json prints one document" in said.err
    assert "hint: " in said.err
    assert not said.out


RECIPE = "[schedule]\nmax_steps = 10\n"
ROW = {"kind": "train", "step": 5, "tokens": 50, "tokens_per_second": 10.0}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", "{", "Expecting property name"),
        ("manifest.json", "[]", "[], expected an object"),
        ("manifest.json", "{}", "`corpus_hash` is missing"),
        ("manifest.json", '{"corpus_hash": "1", "units": 3}', "`units` is 3, expected"),
        ("manifest.json", b"\xff", "can't decode"),
        ("recipe.toml", "schedule = [", ""),
        ("recipe.toml", b"\xff", "can't decode"),
        ("recipe.toml", "", "`schedule` is missing"),
        ("recipe.toml", "[schedule]\nmax_steps = 0\n", "`schedule.max_steps` is 0, expected greater than 0"),
        ("recipe.toml", "[schedule]\nmax_steps = '9'\n", "`schedule.max_steps` is '9', expected a valid integer"),
        ("units/configuration.json", "{}", "`inputs` is missing"),
        (".status/run.json", "[]", "[], expected an object"),
        (".status/run.json", '{"tasks": {}}', "`command` is missing"),
        (".status/run.json", "{", "Expecting property name"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, name: str, content: str | bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(["status", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / name} is damaged: ")
    assert reason in said
    assert "\nhint: " in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1, 2]", "line 1, is damaged: [1, 2], expected an object"),
        ('{"kind": "train"}', "line 1, is damaged: `step` is missing"),
        (b"\xff", "line 1, is damaged: 'utf-8' codec can't decode"),
        (json.dumps(ROW | {"tokens": 0}), "is damaged: `tokens` is 0, expected greater than 0"),
        (
            json.dumps(ROW | {"tokens_per_second": "fast"}),
            "is damaged: `tokens_per_second` is 'fast', expected a valid",
        ),
        (json.dumps(ROW | {"tokens_per_second": float("nan")}), "expected a finite number"),
    ],
)
def test_a_damaged_row_is_named(
    tmp_path: Path, line: str | bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "metrics.jsonl").write_bytes((line if isinstance(line, bytes) else line.encode()) + b"\n")
    assert run(["status", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'metrics.jsonl'}")
    assert reason in said
    assert "\nhint: " in said


@pytest.mark.parametrize("note", ["[]", "1", "{}", '{"host": "a", "pid": 1, "since": 1, "heard": 1, "facts": []}', ""])
def test_a_damaged_note_is_passed_over(board: Board, note: str, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("running", "failed", "slices"):
        (board.folder / kind).mkdir(exist_ok=True)
        (board.folder / kind / "third.json").write_text(note)
    found = shown(board.out, capsys)
    assert (found["done"], found["running"], found["waiting"]) == (2, [], 1)
    assert board.failures().keys() == {"fourth"}
    assert board.facts("third") is None


def test_a_grid_without_its_board_has_no_known_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells" / "abc").mkdir(parents=True)
    (tmp_path / "grid.json").write_text("{}")
    (tmp_path / "cells" / "abc" / "cola-1.json").write_text("{}")
    found = shown(tmp_path, capsys)
    assert (found["done"], found["tasks"], found["share"], found["waiting"]) == (1, None, None, None)
    assert run(["status", str(tmp_path), "--watch"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("glue: 1 cells done\nno run is listed, as after one that made all")
    assert "%" not in said


def test_a_corpus_without_board_and_manifest_is_known_by_its_units(
    tmp_path: Path,
    arguments: Arguments,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run(arguments(out, "--workers", "1")) == 0
    (out / "manifest.json").unlink()
    capsys.readouterr()
    found = shown(out, capsys)
    assert (found["command"], found["done"], found["tasks"], found["share"]) == ("prepare", 8, 8, 1.0)
    assert "--slice finish" in str(found["unfinished"])
    next((out / "units").glob("data-00003-*.json")).unlink()
    assert run(["status", str(out)]) == 0
    said = capsys.readouterr().out
    assert said == "prepare: 7 of 8 files done, 87.5%\nnot finished: run the command again\n"


@pytest.mark.parametrize("engine", ["slurm", "local"])
def test_a_corpus_whose_units_are_all_made_says_what_is_missing(
    tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path)
    board.begin("prepare", engine, "B", {name: Entry(name, 100, name) for name in NAMES})
    for name in NAMES:
        (tmp_path / name).touch()
    assert run(["status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("not finished: ")
    assert "--slice finish" in lines[1]
    (tmp_path / "manifest.json").write_text("{}")
    assert "unfinished" not in shown(tmp_path, capsys)
