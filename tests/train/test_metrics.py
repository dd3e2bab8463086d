from pathlib import Path

import pytest

from train.metrics import MetricsLog, read_metrics

ROWS = [{"kind": "train", "step": step, "loss": 1.5} for step in (1, 2, 3)]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, None) as log:
        log.write(ROWS[:2])
        log.write(ROWS[2:])
        assert read_metrics(tmp_path) == ROWS


def test_resuming_removes_what_lies_beyond_the_step(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, None) as log:
        log.write(ROWS)
    with MetricsLog(tmp_path, 2) as log:
        log.write([{"kind": "train", "step": 3, "loss": 9.0}])
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.5, 1.5, 9.0]


def test_a_line_cut_by_a_kill_is_removed(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, None) as log:
        log.write(ROWS)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    with MetricsLog(tmp_path, 3):
        pass
    assert path.read_bytes().endswith(b"\n")
    assert read_metrics(tmp_path) == ROWS[:2]


def test_starting_from_nothing_removes_everything(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, None) as log:
        log.write(ROWS)
    with MetricsLog(tmp_path, None):
        assert read_metrics(tmp_path) == []


def test_nan_is_no_json(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, None) as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.write([{"step": 1, "loss": float("nan")}])
