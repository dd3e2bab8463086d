import json
from pathlib import Path

import pytest

from cli.main import run
from tests.train.glue.conftest import CheckpointFactory, checkpoint, glue  # noqa: F401 - fixtures


@pytest.fixture
def folder(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Path:
    models = [str(checkpoint("original")), str(checkpoint("shared"))]
    arguments = ["--data-dir", str(glue), "--tasks", "cola,rte", "--seeds", "2", "--workers", "1", "--quiet"]
    settings = ["--set", "epochs=2", "--set", "learning_rate=1e-3"]
    assert run(["glue", *models, "--out", str(tmp_path / "out"), *arguments, *settings]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def test_glue_compare_prints_a_line_for_every_number_and_the_average(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["glue-compare", f"{folder}:original", f"{folder}:shared", "--resamples", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("|  | original | shared | difference | 95 % over examples | paired t | Holm |")
    names = [line.split("|")[1].strip() for line in lines[2:] if line.startswith("|")]
    assert [name for name in names if "without" not in name] == ["cola", "rte", "glue"]


def test_glue_compare_as_json_holds_every_seed_and_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["glue-compare", f"{folder}:original", f"{folder}:shared", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["first"], document["second"]) == ("original", "shared")
    rte = document["numbers"]["rte"]
    assert rte["seeds"] == [1, 2]
    assert rte["difference"] == pytest.approx(sum(rte["second"]) / 2 - sum(rte["first"]) / 2)


def test_glue_compare_refuses_what_is_not_one_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["glue-compare", str(folder), f"{folder}:shared"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {folder} holds 2 models, expected one")
    assert f"hint: write {folder}:MODEL with one of original, shared" in output.err
