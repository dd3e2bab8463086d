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
