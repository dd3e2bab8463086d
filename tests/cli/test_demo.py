import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.chain import Chain
from cli.demo import Scale, run_demo
from cli.demo_summary import as_text
from cli.main import run
from cli.record import StudyError

SMALL = Scale(
    texts=80,
    vocabulary_size=600,
    validation_samples=8,
    validation_share=0.3,
    max_steps=6,
    train_sentences=16,
    dev_sentences=8,
    epochs=1,
    seeds=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, run_demo(out, SMALL, Chain(quiet=True), quiet=True)


def files_of(out: Path) -> dict[str, tuple[int, int]]:
    """Every file's inode and time of change, but for records of invocations and tables, which are written each time."""
    return {
        str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.rglob("*")
        if path.is_file() and path.suffix in {".zst", ".tsv", ".arrow", ".parquet", ".safetensors"}
    } | {
        str(path.relative_to(out)): (0, path.stat().st_mtime_ns) for path in (out / "scores" / "cells").rglob("*.json")
    }


@pytest.mark.slow
def test_the_chain_leads_from_shards_to_a_table(made: tuple[Path, dict[str, Any]]) -> None:
    out, summary = made
    funnel = summary["funnel"]
    assert (
        funnel["documents"] == funnel["kept"] + sum(funnel["dropped"].values()) == summary["inputs"]["texts"]["corpus"]
    )
    assert funnel["dropped"]["blocklist"] > 0
    assert funnel["dropped"]["quality_warnings"] > 0
    assert {name: run["step"] for name, run in summary["losses"].items()} == {"original": 6, "pairwise": 6}
    assert [model["operator"] for model in summary["glue"]["models"]] == ["original", "pairwise"]
    assert (out / "scores" / "table.md").is_file()
    assert summary["report"] == str(out / "report.html")
    assert f"{funnel['kept']:,} of {funnel['documents']:,} documents" in (out / "report.html").read_text("utf-8")
    assert 4 < summary["unigram_loss"] < 6.4


@pytest.mark.slow
def test_the_summary_shows_funnel_losses_scores_and_what_to_type_next(made: tuple[Path, dict[str, Any]]) -> None:
    out, summary = made
    text = as_text(out, summary)
    for number in (*summary["funnel"]["dropped"].values(), summary["funnel"]["kept"], summary["funnel"]["tokens"]):
        assert f"{number:,}" in text
    for run_ in summary["losses"].values():
        assert f"{run_['last_evaluation_loss']:.2f}" in text
    assert "one answer always" in text
    assert f"symbert verify {out / 'corpus'}" in text
    assert text.splitlines()[-1].strip() == (out / "report.html").as_uri()
    assert all(len(line) <= 120 for line in text.splitlines() if "symbert" not in line)


@pytest.mark.long
def test_running_it_again_makes_nothing_anew(made: tuple[Path, dict[str, Any]]) -> None:
    out, summary = made
    before = files_of(out)
    again = run_demo(out, SMALL, Chain(quiet=True), quiet=True)
    assert files_of(out) == before
    assert (again["glue"]["trained"], again["glue"]["found"]) == (0, 4)
    for operator, run_again in again["losses"].items():
        # The speed is this invocation's, which trained nothing.
        assert {**summary["losses"][operator], "tokens_per_second": None, "model_flops_utilisation": None} == run_again


@pytest.mark.slow
def test_what_it_tells_to_type_next_can_be_typed(
    made: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in made[1]["next"]:
        assert run(command.split()[1:]) == 0, capsys.readouterr().err


def test_another_scale_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps({"identity": {**vars(SMALL), "python": "3.11"}}), "utf-8")
    with pytest.raises(StudyError, match="was begun otherwise: .*epochs: 1 → 2"):
        run_demo(tmp_path, replace(SMALL, epochs=2), Chain(quiet=True), quiet=True)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    assert run(["demo", "--out", str(tmp_path)]) == 1
    assert "holds other things (thesis.tex) and no demo.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_called_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    assert run(["demo", "--out", str(tmp_path / "thesis.tex")]) == 1
    assert "thesis.tex is a file, expected a folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text("utf-8") == "precious"


def test_a_command_that_is_refused_ends_the_chain_with_its_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        Chain(quiet=True).run("prepare", str(tmp_path / "nothing"), "--out", str(tmp_path / "out"))
    assert ended.value.exit_code == 1
    assert "error: " in capfd.readouterr().err
