import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from cli.main import run
from tests.train.glue.conftest import CheckpointFactory, checkpoint, glue  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        "glue", str(model), "--data-dir", str(data), "--out", str(out), "--tasks", "cola,rte", "--seeds", "2",
        "--set", "epochs=1", "--device", "cpu", "--workers", "1", "--quiet", *more,
    ]  # fmt: skip


def test_glue_prints_the_table_and_trains_nothing_the_second_time(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = command(checkpoint(), glue, tmp_path / "out")
    assert run(arguments) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "table.md").read_text()
    assert table.startswith("| model | GLUE (std) | mrpc | cola |")
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["trained"], document["found"], document["left"]) == (0, 4, 0)
    assert document["models"][0]["averaged"] == ["cola", "rte"]
    assert run([*arguments, "--set", "learning_rate=0.1"]) == 1
    assert "learning_rate: 1e-05 → 0.1" in capsys.readouterr().err


def test_published_scores_stand_below_and_failed_cells_wait_to_be_asked_for(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = command(checkpoint(), glue, tmp_path / "out", "--published")
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.begin:1:full")
    assert run(arguments) == 1
    output = capsys.readouterr()
    assert "| base, pairwise (Courtois et al., 2024) | 79.36 (0.37) |" in output.out
    assert "failed: OSError: [Errno 28] No space left on device" in output.out
    assert "hint: --retry-failed tries the failed cells again" in output.err
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    assert run(arguments) == 1
    assert "(in an earlier run)" in capsys.readouterr().err
    assert run([*arguments, "--retry-failed"]) == 0
    assert "failed" not in capsys.readouterr().out


def test_a_stopped_grid_exits_with_75_and_goes_on(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = command(checkpoint(), glue, tmp_path / "out")
    monkeypatch.setenv("SYMBERT_FAILPOINT", "cell.after-rename:2:term")
    assert run(arguments) == 75
    assert len(list(tmp_path.glob("out/cells/*/*.json"))) == 2
    assert run(arguments) == 0
    assert len(list(tmp_path.glob("out/cells/*/*.json"))) == 4


@pytest.mark.slow
def test_a_killed_grid_leaves_whole_cells_alone(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    arguments = [sys.executable, "-m", "cli", *command(checkpoint(), glue, tmp_path / "out")]
    environment = {**os.environ, "SYMBERT_FAILPOINT": "cell.before-rename:2:kill"}
    killed = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("out/cells/*/*.json"))) == 1
    assert run(arguments[3:]) == 0
    assert not list(tmp_path.rglob(".*.partial-*"))


def scores(out: Path) -> dict[str, object]:
    """Everything of every cell but how long it took."""
    found = {}
    for path in sorted(out.glob("cells/*/*.json")):
        cell = json.loads(path.read_text())
        del cell["timing"]
        found[path.name] = cell
    return found


@pytest.mark.long
def test_a_grid_killed_ten_times_ends_as_an_undisturbed_one(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    options = ["--tasks", "rte,cola,stsb", "--set", "epochs=40", "--workers", "2"]
    arguments = [sys.executable, "-m", "cli", *command(checkpoint(), glue, tmp_path / "killed", *options)]
    random, kills = Random(1), 0
    while kills < 10:
        grid = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert grid.wait(timeout=random.uniform(2, 16)) == 0
            shutil.rmtree(random.choice(list((tmp_path / "killed" / "cells").iterdir())))
        except subprocess.TimeoutExpired:
            grid.kill()
            grid.wait()
            kills += 1
    assert subprocess.run(arguments, cwd=ROOT, capture_output=True).returncode == 0
    undisturbed = command(checkpoint(), glue, tmp_path / "undisturbed", *options, "--workers", "1")
    assert run(undisturbed) == 0
    assert len(scores(tmp_path / "killed")) == 6
    assert scores(tmp_path / "killed") == scores(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_worker_costs_no_cell(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    arguments = command(checkpoint(), glue, tmp_path / "out", "--workers", "2")
    # Every worker counts for itself: each dies in its second cell.
    environment = {**os.environ, "SYMBERT_FAILPOINT": "finetune.begin:2:kill"}
    grid = subprocess.run(
        [sys.executable, "-m", "cli", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert grid.returncode == 0, grid.stderr
    assert run(command(checkpoint(), glue, tmp_path / "undisturbed")) == 0
    assert scores(tmp_path / "out") == scores(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--tasks", "colla"], 2, "error: invalid value for '--tasks': `colla` is not a GLUE task, expected all, or"),
        (["--seeds", "two"], 2, "error: invalid value for '--seeds': two is neither a number of seeds nor a list"),
        (["--seeds", "1" + "0" * 5000], 2, "error: invalid value for '--seeds': 10000000000000000000 seeds, expected"),
        (["--seeds", "0"], 2, "error: invalid value for '--seeds': 0, expected at least one seed"),
        (["--learning-rates", "1e-5;2"], 2, "error: invalid value for '--learning-rates': 1e-5;2 is not a list"),
        (["--set", "noise_rate=0.2"], 2, "error: invalid value for '--set': noise_rate is given, and no kind of noise"),
        (["--noise", "drop", "--set", "noise=swap"], 2, "error: invalid value for '--set': noise is given by --noise"),
        (
            ["--learning-rates", "1e-5", "--set", "learning_rate=2e-5"],
            2,
            "error: invalid value for '--set': learning_rate is given by --learning-rates already: give one of them",
        ),
        (
            ["--noise-rate", "0.2"],
            2,
            "error: invalid value for '--noise-rate': noise_rate is given, and no kind of noise",
        ),
        (["--predictions"], 1, "error: "),
        (["--device", "cuda:99"], 1, "error: --device cuda:99 is not there"),
        (["--set", "learning_rat=1"], 1, "error: `learning_rat` is not a protocol key"),
        (["--data-dir", "/nonexistent"], 1, "error: /nonexistent does not exist"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str],
    code: int,
    error: str,
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command(checkpoint(), glue, tmp_path / "out", *arguments)) == code
    output = capsys.readouterr()
    assert output.err.startswith(error)
    assert output.out == ""
    assert not (tmp_path / "out").exists()
