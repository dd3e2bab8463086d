from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.signals import StopRequest
from tests.train.glue.conftest import CheckpointFactory
from tests.train.glue.test_table import A, B, cell
from train.errors import TrainError
from train.glue.layouts import as_markdown
from train.glue.protocol import Protocol
from train.glue.request import Request
from train.glue.search import best_of, run_search
from train.glue.tasks import TASKS

GRID: dict[str, Any] = {"protocol": {"epochs": 5}, "checkpoints": {A: {"name": "a"}, B: {"name": "b"}}}


def rte(weights: str, seed: int, accuracy: float) -> dict[str, Any]:
    return cell(weights, "rte", seed, {"accuracy": accuracy})


def test_every_model_gets_its_best_rate_by_the_mean_over_seeds() -> None:
    low = [rte(A, 1, 0.5), rte(A, 2, 0.9), rte(B, 1, 0.6), rte(B, 2, 0.6)]
    high = [rte(A, 1, 0.6), rte(A, 2, 0.6), rte(B, 1, 0.7), rte(B, 2, 0.6)]
    table = best_of({1e-5: (low, GRID), 2e-5: (high, GRID)})
    means = {row.name: row.scores.numbers["rte"].mean for row in table.rows}
    assert means == {"a": pytest.approx(0.7), "b": pytest.approx(0.65)}
    text = as_markdown(table)
    assert "a: best learning rate rte 1e-05\n" in text
    assert "b: best learning rate rte 2e-05\n" in text


def test_of_equal_rates_the_smaller_is_taken() -> None:
    table = best_of({2e-5: ([rte(A, 1, 0.5)], GRID), 1e-5: ([rte(A, 1, 0.5)], GRID)})
    assert "a: best learning rate rte 1e-05\n" in as_markdown(table)


def test_a_rate_without_one_of_the_seeds_is_not_chosen_and_named() -> None:
    whole, short = [rte(A, 1, 0.5), rte(A, 2, 0.4)], [rte(A, 2, 0.9)]
    table = best_of({1e-5: (whole, GRID), 2e-5: (short, GRID)})
    assert table.rows[0].scores.numbers["rte"].mean == pytest.approx(0.45)
    assert list(table.remarks) == [
        "a: best learning rate rte 1e-05",
        "a: rte lacks a seed at 2e-05, which is not in the choice",
    ]


@pytest.fixture
def request_(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint("original")],
        out=tmp_path / "out",
        tasks=[TASKS["cola"]],
        seeds=[1, 2],
        protocol=Protocol(epochs=12),
        data_dir=glue,
        device="cpu",
        workers=1,
    )


def test_a_search_runs_a_grid_for_each_rate_once_and_tables_the_best(request_: Request) -> None:
    outcome = run_search(request_, [1e-9, 3e-3])
    assert (outcome.trained, outcome.found, outcome.left) == (4, 0, 0)
    assert sorted(path.name for path in request_.out.iterdir() if path.is_dir()) == [
        "learning-rate-0.003",
        "learning-rate-1e-09",
    ]
    assert outcome.table.remarks == ["original: best learning rate cola 0.003"]
    assert (request_.out / "table.md").read_text() == as_markdown(outcome.table)
    again = run_search(request_, [1e-9, 3e-3])
    assert (again.trained, again.found) == (0, 4)


@pytest.mark.slow
def test_a_later_search_chooses_among_all_rates_of_the_folder(request_: Request) -> None:
    run_search(request_, [3e-3])
    outcome = run_search(request_, [1.0000001e-9])
    assert (outcome.trained, outcome.found) == (2, 0)
    assert outcome.table.remarks == ["original: best learning rate cola 0.003"]
    with pytest.raises(TrainError, match="was made otherwise: epochs: 12 → 1"):
        run_search(replace(request_, protocol=Protocol(epochs=1)), [1e-4])
    assert not (request_.out / "learning-rate-0.0001").exists()


def test_a_cell_that_fails_is_named_below_the_table(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.begin:1:full")
    table = run_search(replace(request_, protocol=Protocol(epochs=1)), [1e-5, 2e-5]).table
    assert "original: cola lacks a seed at 1e-05, which is not in the choice" in table.remarks
    (failure,) = [remark for remark in table.remarks if "failed" in remark]
    assert failure.startswith("learning-rate-1e-05: original: cola-1 failed: ")


def test_a_search_that_is_refused_leaves_no_folder(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nowhere does not exist"):
        run_search(replace(request_, data_dir=tmp_path / "nowhere"), [1e-9])
    assert not request_.out.exists()


def test_a_folder_of_other_things_is_left_as_it_is(request_: Request) -> None:
    request_.out.mkdir()
    (request_.out / "table.md").write_text("mine")
    with pytest.raises(TrainError, match=r"holds other things \(table\.md\) and no learning-rate-…"):
        run_search(request_, [1e-9])
    assert [path.name for path in request_.out.iterdir()] == ["table.md"]


def test_a_stopped_search_counts_the_rates_that_it_did_not_reach(request_: Request) -> None:
    with StopRequest() as stop:
        stop._receive(15, None)
        outcome = run_search(request_, [1e-9, 3e-3], stop=stop)
    assert (outcome.trained, outcome.left) == (0, 4)


def test_a_glue_folder_of_one_protocol_is_not_searched_in(request_: Request) -> None:
    run_search(replace(request_, protocol=Protocol(epochs=1)), [1e-9])
    with pytest.raises(TrainError, match="is a GLUE folder of one protocol"):
        run_search(replace(request_, out=request_.out / "learning-rate-1e-09"), [1e-9])
