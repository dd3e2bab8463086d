"""The same corpus, byte for byte, whatever engine makes it and whatever dies meanwhile."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from durable.board import Board, Failure
from tests.durable.test_engines import needs_ray
from tests.ray_cluster import run_on_two_nodes

Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]
Arguments = Callable[..., list[str]]


@pytest.fixture
def inputs(tmp_path: Path, oscar: Oscar, write_shard: Write) -> Path:
    for part in range(8):
        records = [oscar("the quick brown fox " * (number % 50), 1000 * part + number) for number in range(200)]
        write_shard(tmp_path / f"in/part_{part}.jsonl.zst", records)
    return tmp_path / "in"


@pytest.fixture
def arguments(inputs: Path, tokenizer_folder: Path) -> Arguments:
    """The command line that prepares `inputs`."""

    def make(out: Path, *more: str) -> list[str]:
        return [
            "prepare", str(inputs), "--out", str(out), "--tokenizer", str(tokenizer_folder), "--sequence-length", "16",
            "--validation-samples", "4", "--validation-share", "0.2", "--quiet", "--no-report", *more,
        ]  # fmt: skip

    return make


def corpus(folder: Path) -> dict[str, bytes]:
    """Every file but the lock and the page for readers, which quotes the command."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".symbert.lock", "README.md"}
    }


@pytest.mark.slow
def test_ray_makes_the_same_bytes_as_local_workers(tmp_path: Path, arguments: Arguments) -> None:
    needs_ray()
    assert run(arguments(tmp_path / "local", "--workers", "1")) == 0
    assert run(arguments(tmp_path / "ray", "--engine", "ray", "--workers", "2")) == 0
    assert corpus(tmp_path / "ray") == corpus(tmp_path / "local")


@pytest.mark.slow
def test_a_budget_means_the_same_on_ray(tmp_path: Path, arguments: Arguments) -> None:
    needs_ray()
    assert run(arguments(tmp_path / "local", "--max-documents", "500", "--workers", "1")) == 0
    assert run(arguments(tmp_path / "ray", "--max-documents", "500", "--engine", "ray", "--workers", "2")) == 0
    assert corpus(tmp_path / "ray") == corpus(tmp_path / "local")


def test_files_are_shipped_to_running_clusters_alone(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(tmp_path / "out", "--engine", "ray", "--ship-files")) == 2
    assert "'--ship-files'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_lists_that_are_shipped_judge_as_lists_that_are_seen(tmp_path: Path, arguments: Arguments) -> None:
    needs_ray()
    (tmp_path / "ut1/adult").mkdir(parents=True)
    urls = "".join(f"example.org/{number}\n" for number in range(0, 8000, 3))
    (tmp_path / "ut1/adult/urls").write_text(urls, "utf-8")
    judged = ("--blocklists", str(tmp_path / "ut1"), "--drop-categories", "adult")
    assert run(arguments(tmp_path / "local", *judged, "--workers", "1")) == 0
    shipped = arguments(tmp_path / "ray", *judged, "--engine", "ray", "--ship-files")
    result = run_on_two_nodes(tmp_path / "ray", "units/data-*.json", shipped)
    assert result.returncode == 0, result.stderr
    assert corpus(tmp_path / "ray") == corpus(tmp_path / "local")


@pytest.mark.slow
def test_two_nodes_of_which_one_is_killed_lose_and_double_no_unit(
    tmp_path: Path, arguments: Arguments, inputs: Path, oscar: Oscar, write_shard: Write
) -> None:
    needs_ray()
    for part in range(8, 16):  # enough to do when the node dies
        records = [oscar("the quick brown fox " * 200, 1000 * part + number) for number in range(2000)]
        write_shard(inputs / f"part_{part}.jsonl.zst", records)
    assert run(arguments(tmp_path / "local", "--workers", "1")) == 0
    out = tmp_path / "ray"
    result = run_on_two_nodes(out, "units/data-*.json", arguments(out, "--engine", "ray"))
    assert result.returncode == 0, result.stderr
    assert "killed a node: True" in result.stderr
    assert corpus(out) == corpus(tmp_path / "local")
    units = [unit["file"] for unit in json.loads((out / "manifest.json").read_text())["units"]]
    assert len(units) == len(set(units)) == 16


@pytest.mark.long
@pytest.mark.shared
def test_two_nodes_of_which_one_is_killed_make_the_papers_corpus(tmp_path: Path, shared: Path) -> None:
    needs_ray()
    command = [
        "prepare",
        str(shared / "oscar2301/en_meta"),
        "--tokenizer",
        str(shared / "bert-base-uncased"),
        "--quiet",
    ]
    assert run([*command, "--out", str(tmp_path / "local"), "--workers", "1"]) == 0
    out = tmp_path / "ray"
    result = run_on_two_nodes(out, "units/data-*.json", [*command, "--out", str(out), "--engine", "ray"])
    assert result.returncode == 0, result.stderr
    assert "killed a node: True" in result.stderr
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (out, tmp_path / "local")]
    assert manifests[0]["corpus_hash"] == manifests[1]["corpus_hash"]
    assert manifests[0]["ledger"] == manifests[1]["ledger"]
    assert [unit["file"] for unit in manifests[0]["units"]] == [
        f"en_meta_part_{part}.jsonl.zst" for part in range(1, 7)
    ]


@pytest.mark.slow
def test_a_signal_keeps_what_ray_has_done_and_any_engine_continues(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_ray()
    from oscar_prep import prepare

    hear = prepare.Corpus._hear

    def interrupt(*arguments: Any) -> None:
        hear(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(prepare.Corpus, "_hear", interrupt)
    assert run(arguments(tmp_path / "out", "--engine", "ray", "--workers", "1")) == 75
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "out").rglob("*.partial-*"))
    monkeypatch.undo()
    assert run(arguments(tmp_path / "out", "--workers", "1")) == 0
    assert run(arguments(tmp_path / "fresh", "--workers", "1")) == 0
    assert corpus(tmp_path / "out") == corpus(tmp_path / "fresh")


def test_slices_make_the_same_bytes_as_one_run(tmp_path: Path, arguments: Arguments) -> None:
    assert run(arguments(tmp_path / "local", "--workers", "1")) == 0
    out = tmp_path / "sliced"
    assert run(["slurm", *arguments(out)]) == 0
    for number in (2, 0, 1):
        assert run(arguments(out, "--slice", f"{number}/3", "--workers", "1")) == 0
    assert run(arguments(out, "--slice", "finish")) == 0
    assert corpus(out) == corpus(tmp_path / "local")


def test_finishing_names_what_is_missing_and_exits_with_75(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sliced"
    assert run(["slurm", *arguments(out)]) == 0
    assert run(arguments(out, "--slice", "0/4", "--workers", "1")) == 0
    capsys.readouterr()
    assert run(arguments(out, "--slice", "finish")) == 75
    assert capsys.readouterr().err.startswith("error: 6 of 8 files are not made yet: ")
    assert not (out / "manifest.json").exists()


def test_finishing_puts_a_tokenizer_that_was_lost_into_the_folder_again(tmp_path: Path, arguments: Arguments) -> None:
    out = tmp_path / "sliced"
    assert run(["slurm", *arguments(out)]) == 0
    assert run(arguments(out, "--slice", "0/1", "--workers", "1")) == 0
    whole = {path.name: path.read_bytes() for path in (out / "tokenizer").iterdir()}
    for lose in (shutil.rmtree, lambda folder: (folder / "tokenizer.json").unlink()):
        lose(out / "tokenizer")
        assert run(arguments(out, "--slice", "finish")) == 0
        assert run(["verify", str(out)]) == 0
        assert {path.name: path.read_bytes() for path in (out / "tokenizer").iterdir()} == whole


def test_finishing_repeats_why_a_slice_failed(
    tmp_path: Path, arguments: Arguments, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (inputs / "part_3.jsonl.zst").read_bytes()
    (inputs / "part_3.jsonl.zst").write_bytes(whole[:-9])
    out = tmp_path / "sliced"
    assert run(["slurm", *arguments(out)]) == 0
    assert run(arguments(out, "--slice", "0/1", "--workers", "1")) == 1
    reason = capsys.readouterr().err
    assert run(arguments(out, "--slice", "finish")) == 1
    assert "part_3.jsonl.zst" in reason
    assert reason.splitlines()[0] == capsys.readouterr().err.splitlines()[0]
    (inputs / "part_3.jsonl.zst").write_bytes(whole)
    assert run(arguments(out, "--slice", "0/1", "--workers", "1")) == 0
    assert run(arguments(out, "--slice", "finish")) == 0


def test_finishing_has_a_validation_shard_that_was_cut_made_anew_where_a_unit_before_it_is_lost(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sliced"
    steps = [["--slice", "0/1", "--workers", "1"], ["--slice", "finish"]]
    assert run(["slurm", *arguments(out)]) == 0
    assert [run(arguments(out, *step)) for step in steps] == [0, 0]
    whole = corpus(out)
    (out / "train/data-00000-of-00008.arrow").unlink()
    assert run(["slurm", *arguments(out)]) == 0
    Board(out).fail("data-00000-of-00008", Failure("its process was killed 3 times", 3))
    capsys.readouterr()
    assert run(arguments(out, *steps[1])) == 75
    error = capsys.readouterr().err
    assert error.startswith("error: 1 files are to be made again for their validation samples: part_1.jsonl.zst\n")
    assert not (out / "units/data-00001-of-00008.json").exists()
    assert [run(arguments(out, *step)) for step in steps] == [0, 0]
    assert corpus(out) == whole


@pytest.mark.parametrize("text", ["3", "3/3", "-1/3", "a/b", "1/0", ""])
def test_a_slice_of_another_form_is_refused(
    tmp_path: Path, arguments: Arguments, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(tmp_path / "out", "--slice", text)) == 2
    assert "--slice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_slices_need_a_folder_that_was_opened_and_no_budget(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(tmp_path / "out", "--slice", "0/2")) == 1
    assert "symbert slurm prepare" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(arguments(tmp_path / "out", "--slice", "0/2", "--max-documents", "3")) == 1
    assert "count in file order" in capsys.readouterr().err
