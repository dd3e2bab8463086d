import sys
from pathlib import Path

import pytest

from cli.main import run
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments
from train.metrics import MetricsLog, read_metrics
from train.track import TensorBoard, scalars

ROW = {"kind": "train", "step": 1, "tokens": 256, "loss": 4.5, "gradient_norm": None}


def points(run_folder: Path) -> list[tuple[str, int, float]]:
    """Every point, as TensorBoard itself reads it."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run_folder / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return sorted((tag, point.step, point.value) for tag in read.Tags()["scalars"] for point in read.Scalars(tag))


def expected(run_folder: Path) -> list[tuple[str, int, float]]:
    rows = read_metrics(run_folder)
    return sorted((tag, row["step"], pytest.approx(value)) for row in rows for tag, value in scalars(row))


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    settings = [word for text in tiny_assignments() for word in ("--set", text)]
    return ["pretrain", "--data", str(corpus), "--out", str(out), "--device", "cpu", "--quiet", *settings, *more]


def test_the_mirror_holds_every_number_of_the_metrics_once_however_the_run_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    corpus, out = write_corpus(tmp_path / "corpus"), tmp_path / "run"
    assert run(command(corpus, out, "--track", "tensorboard", "--stop-after-step", "7")) == 75
    assert points(out) == expected(out)
    assert run(command(corpus, out, "--stop-after-step", "9")) == 75  # without a mirror for once
    assert run(command(corpus, out, "--track", "tensorboard")) == 0
    found = points(out)
    assert found == expected(out)
    assert [step for tag, step, _ in found if tag == "train/loss"] == list(range(1, 21))
    assert {"evaluation/evaluation_accuracy", "attention/entropy/layer-1"} <= {tag for tag, _, _ in found}


def test_points_beyond_the_step_that_a_killed_run_resumes_from_are_gone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with MetricsLog(tmp_path, None, TensorBoard(tmp_path)) as log:
        log.write([ROW, {**ROW, "step": 2}, {**ROW, "step": 3}])
    with MetricsLog(tmp_path, 1, TensorBoard(tmp_path)) as log:
        log.write([{**ROW, "step": 2, "loss": 9.0}])
    assert points(tmp_path) == [
        ("train/loss", 1, 4.5), ("train/loss", 2, 9.0), ("train/tokens", 1, 256), ("train/tokens", 2, 256),
    ]  # fmt: skip


def test_without_the_extra_one_line_says_what_to_install_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "tensorboard.compat.proto", raising=False)
    corpus = write_corpus(tmp_path / "corpus")
    assert run(command(corpus, tmp_path / "run", "--track", "tensorboard")) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: ")
    assert said[0].endswith(" is not installed, expected the extra `tensorboard`")
    assert said[-1].startswith("hint: pip install 'symbert[tensorboard]'")
    assert not (tmp_path / "run").exists()
