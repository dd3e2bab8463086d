"""Folders of versions whose records did not say whether a GPU computes in TF32."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.glue.conftest import CheckpointFactory
from train.errors import TrainError
from train.glue.cells import Cell, read_grid
from train.glue.checkpoint import find_subject
from train.glue.failures import keep_failure, known_failure
from train.glue.grid import run_grid
from train.glue.protocol import Protocol
from train.glue.read import read_task
from train.glue.request import Request
from train.glue.search import run_search
from train.glue.tasks import TASKS


@pytest.fixture
def request_(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint()],
        out=tmp_path / "out",
        tasks=[TASKS["rte"]],
        seeds=[1, 2],
        protocol=Protocol(epochs=1),
        data_dir=glue,
        device="cpu",
        workers=1,
    )


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def make_older(out: Path, device: str = "cpu") -> None:
    for path in out.rglob("grid.json"):
        edit(path, lambda record: record["protocol"].pop("tf32"))
    for path in out.rglob("cells/*/*.json"):
        edit(path, lambda record: record["identity"]["protocol"].pop("tf32"))
        edit(path, lambda record: record["timing"].update(device=device))


def test_grid_and_cells_name_it(request_: Request) -> None:
    run_grid(request_)
    assert json.loads((request_.out / "grid.json").read_text("utf-8"))["protocol"]["tf32"] is True
    cell = next(request_.out.glob("cells/*/rte-1.json"))
    assert json.loads(cell.read_text("utf-8"))["identity"]["protocol"]["tf32"] is True


def test_a_folder_of_cells_from_a_cpu_goes_on_with_the_default(request_: Request) -> None:
    run_grid(replace(request_, seeds=[1]))
    make_older(request_.out)
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found) == (1, 1)
    assert (run_grid(request_).found, read_grid(request_.out)["protocol"]["tf32"]) == (2, True)


def test_a_folder_of_cells_from_a_gpu_goes_on_without_tf32_alone(request_: Request) -> None:
    run_grid(replace(request_, seeds=[1]))
    make_older(request_.out, "NVIDIA A100-SXM4-40GB")
    before = {path: path.read_bytes() for path in request_.out.rglob("[!.]*") if path.is_file()}
    with pytest.raises(TrainError, match="was made otherwise: tf32: False → True"):
        run_grid(request_)
    assert {path: path.read_bytes() for path in before} == before
    outcome = run_grid(replace(request_, protocol=Protocol(epochs=1, tf32=False)))
    assert (outcome.trained, outcome.found) == (1, 1)


def test_a_cell_whose_settings_are_lost_is_damaged(request_: Request) -> None:
    run_grid(replace(request_, seeds=[1]))
    make_older(request_.out)
    edit(next(request_.out.glob("cells/*/rte-1.json")), lambda record: record["identity"].update(protocol=None))
    with pytest.raises(TrainError, match=r"rte-1.json is damaged: `identity.protocol` is None"):
        run_grid(request_)


def test_a_search_over_rates_goes_on(request_: Request) -> None:
    assert run_search(replace(request_, seeds=[1]), [1e-3]).trained == 1
    make_older(request_.out)
    outcome = run_search(replace(request_, seeds=[1]), [1e-3, 2e-3])
    assert (outcome.trained, outcome.found) == (1, 1)


def test_a_failure_is_still_known(request_: Request, glue: Path, tmp_path: Path) -> None:
    cell = Cell(find_subject(request_.checkpoints[0], print), TASKS["rte"], 1)
    data = read_task(TASKS["rte"], glue)
    keep_failure(cell, tmp_path, data, Protocol(), "it diverged")
    edit(next(tmp_path.glob("failed/*/*.json")), lambda record: record["identity"]["protocol"].pop("tf32"))
    assert known_failure(cell, tmp_path, data, Protocol()) == "it diverged"
    assert known_failure(cell, tmp_path, data, Protocol(epochs=1)) is None
