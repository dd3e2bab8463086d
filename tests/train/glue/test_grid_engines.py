"""The same cells whatever engine trains them and whatever dies meanwhile."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cli.main import run
from durable.board import STATUS
from tests.durable.test_engines import needs_ray
from tests.ray_cluster import run_on_two_nodes
from tests.train.glue.conftest import CheckpointFactory
from train.errors import TrainError
from train.glue.grid import open_slices, run_grid
from train.glue.protocol import Protocol
from train.glue.request import Request
from train.glue.tasks import TASKS


@pytest.fixture
def request_(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint()],
        out=tmp_path / "local",
        tasks=[TASKS["cola"], TASKS["rte"]],
        seeds=[1, 2],
        protocol=Protocol(epochs=1),
        data_dir=glue,
        device="cpu",
        workers=1,
    )


def scores(out: Path) -> dict[str, object]:
    """Everything of every cell but how long it took."""
    found = {}
    for path in sorted(out.glob("cells/*/*.json")):
        cell = json.loads(path.read_text())
        del cell["timing"]
        found[path.name] = cell
    return found


def test_slices_train_the_same_cells_and_finishing_writes_the_table(request_: Request, tmp_path: Path) -> None:
    run_grid(request_)
    out = tmp_path / "sliced"
    request = replace(request_, out=out)
    assert open_slices(request, 3) == ([0, 1, 2], 3)
    for number in (2, 0):
        outcome = run_grid(replace(request, slice=f"{number}/3"))
        assert (outcome.left, outcome.failed) == (0, {})
    assert not (out / "table.md").exists()
    unfinished = run_grid(replace(request, slice="finish"))
    assert (unfinished.trained, unfinished.left) == (0, 1)
    assert open_slices(request, 3) == ([1], 3)
    run_grid(replace(request, slice="1/3"))
    assert run_grid(replace(request, slice="finish")).found == 4
    assert scores(out) == scores(request_.out)
    assert (out / "table.md").read_text() == (request_.out / "table.md").read_text()
    assert not (out / STATUS).exists()


def test_a_failed_cell_is_submitted_again_on_request(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_slices(request_, 4) == ([0, 1, 2, 3], 4)
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.begin:2:full")
    outcomes = [run_grid(replace(request_, slice=f"{number}/4")) for number in range(4)]
    assert [len(outcome.failed) for outcome in outcomes] == [0, 1, 0, 0]
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    gathered = run_grid(replace(request_, slice="finish"))
    assert (gathered.found, gathered.left, len(gathered.failed)) == (3, 0, 1)
    told: list[str] = []
    assert open_slices(request_, 4, told.append) == ([], 4)
    assert len(told) == 1
    assert "failed in an earlier run: OSError: [Errno 28]" in told[0]
    assert open_slices(replace(request_, retry_failed=True), 4) == ([1], 4)


def test_a_slice_of_a_folder_that_was_not_opened_is_refused_and_leaves_no_folder(request_: Request) -> None:
    for part in ("0/2", "finish"):
        with pytest.raises(TrainError, match="was not opened for slices"):
            run_grid(replace(request_, slice=part))
        assert not request_.out.exists()


@pytest.mark.long
def test_a_grid_on_two_ray_nodes_of_which_one_is_killed_has_the_same_cells(
    request_: Request, glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    needs_ray()
    assert run_grid(request_).trained == 4
    out = tmp_path / "ray"
    command = [
        "glue", str(checkpoint()), "--data-dir", str(glue), "--out", str(out), "--tasks", "cola,rte", "--seeds", "2",
        "--set", "epochs=1", "--quiet", "--engine", "ray",
    ]  # fmt: skip
    result = run_on_two_nodes(out, f"{STATUS}/running/*.json", command)
    assert result.returncode == 0, result.stderr
    assert "killed a node: True" in result.stderr
    assert scores(out) == scores(request_.out)
    assert (out / "table.md").read_text() == (request_.out / "table.md").read_text()
    assert not (out / STATUS).exists()
    assert run([*command[:-2], "--json", "--workers", "1", "--device", "cpu"]) == 0
