import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.glue.conftest import CheckpointFactory, checkpoint, glue  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def benchmark(model: Path | str, data: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/glue.py", *str(model).split(" "), "--data-dir", str(data), "--out", str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.long
def test_the_timing_keeps_what_it_measured_and_does_not_measure_it_again(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    options = ["--tasks", "rte,cola", "--steps", "2", "--examples", "3", "--set", "max_length=16"]
    found = benchmark(checkpoint(), glue, tmp_path, *options)
    assert found.returncode == 0, found.stderr
    assert "rte: 2/2 steps" in found.stderr
    assert found.stdout == (tmp_path / "timing.md").read_text("utf-8")
    record = json.loads((tmp_path / "timing.json").read_text("utf-8"))
    assert [task["steps"] for task in record["tasks"].values()] == [2, 2]
    assert all(seconds > 0 for task in record["tasks"].values() for seconds in task["step"]["symbert"].values())
    del record["tasks"]["cola"]  # as if it had been cut off
    (tmp_path / "timing.json").write_text(json.dumps(record), "utf-8")
    again = benchmark(checkpoint(), glue, tmp_path, *options)
    assert again.returncode == 0, again.stderr
    assert "cola: 2/2 steps" in again.stderr
    assert "rte: " not in again.stderr
    other = benchmark(checkpoint(), glue, tmp_path, *options[:-1], "max_length=12")
    assert other.returncode == 1
    assert "was measured with other settings" in other.stderr


@pytest.mark.long
def test_the_scores_of_both_sides_are_compared_and_kept(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    options = ["--scores", "--tasks", "cola", "--seeds", "2", "--set", "max_length=16", "--set", "epochs=12"]
    options += ["--set", "learning_rate=3e-3", "--set", "batch_size=4"]
    found = benchmark(checkpoint("original"), glue, tmp_path, *options)
    assert found.returncode == 0, found.stderr
    assert found.stdout == (tmp_path / "scores.md").read_text("utf-8")
    _, name, peer, ours, constant, *_ = (cell.strip() for cell in found.stdout.splitlines()[2].split("|"))
    assert (name, constant) == ("cola, matthews_correlation", "0.00")
    assert found.stdout.splitlines()[2].endswith(("| yes | yes |", "| yes | no |"))
    assert float(peer.split()[0]) > 50 < float(ours.split()[0])  # a red thing is acceptable: both sides learn it
    cells = sorted(path.name for path in tmp_path.rglob("cola-*.json"))
    assert cells == ["cola-1.json", "cola-1.json", "cola-2.json", "cola-2.json"]
    again = benchmark(checkpoint("original"), glue, tmp_path, *options)
    assert again.stdout == found.stdout
    assert "Trainer: cola" not in again.stderr


def test_a_tiny_model_is_made_where_none_is_given(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    options = ["--tasks", "rte", "--steps", "1", "--examples", "2", "--set", "max_length=16"]
    found = benchmark(f"--random-weights {checkpoint()}", glue, tmp_path, *options)
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "model" / "config.json").read_text())["hidden_size"] == 64
    assert benchmark("--steps 1", glue, tmp_path).returncode == 2


@pytest.mark.long
def test_stacked_and_separate_seeds_are_timed_and_their_runs_compared(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
) -> None:
    options = ["--stacked", "--tasks", "rte,stsb", "--seeds", "2", "--set", "epochs=1", "--set", "max_length=16"]
    found = benchmark(checkpoint(), glue, tmp_path, *options, "--steps", "100", "--set", "batch_size=4")
    assert found.returncode == 0, found.stderr
    assert found.stdout == (tmp_path / "stacked.md").read_text("utf-8")
    record = json.loads((tmp_path / "stacked.json").read_text("utf-8"))
    assert [(task["task"], task["steps"]) for task in record["tasks"]] == [
        ("rte", 7),
        ("stsb", 7),
    ]  # all that there are
    runs = benchmark(checkpoint(), glue, tmp_path, *options, "--scores")
    assert runs.returncode == 0, runs.stderr
    assert runs.stdout == (tmp_path / "runs.md").read_text("utf-8")
    together = {
        path.relative_to(tmp_path).parts[0]: json.loads(path.read_text("utf-8"))["timing"]["seeds_together"]
        for path in tmp_path.glob("*/cells/*/rte-1.json")
    }
    assert together == {"separate": [1], "stacked": [1, 2]}
