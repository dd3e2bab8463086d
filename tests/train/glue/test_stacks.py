"""Seeds of one task trained together by the grid, into cells of their own."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.board import STATUS
from durable.signals import StopRequest
from tests.train.glue.conftest import CheckpointFactory, write_tsv
from train.glue.grid import open_slices, run_grid
from train.glue.protocol import Protocol
from train.glue.request import Request
from train.glue.tasks import TASKS


@pytest.fixture
def request_(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint()],
        out=tmp_path / "out",
        tasks=[TASKS["cola"], TASKS["rte"]],
        seeds=[1, 2, 3],
        protocol=Protocol(epochs=1),
        data_dir=glue,
        device="cpu",
        workers=1,
        stack_seeds=True,
    )


def cells(out: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("cells/*/*.json"))}


def company(out: Path) -> dict[str, list[int]]:
    return {name: cell["timing"]["seeds_together"] for name, cell in cells(out).items()}


def untimed(out: Path) -> dict[str, dict[str, Any]]:
    return {name: {key: cell[key] for key in cell if key != "timing"} for name, cell in cells(out).items()}


def test_every_seed_of_a_stack_has_a_cell_like_that_of_a_separate_run(request_: Request, tmp_path: Path) -> None:
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found, outcome.left, outcome.failed) == (6, 0, 0, {})
    separate = replace(request_, out=tmp_path / "separate", stack_seeds=None)  # on a CPU seeds are separate by default
    assert run_grid(separate).trained == 6
    here, there = cells(request_.out), cells(separate.out)
    for name, cell in here.items():
        assert cell.keys() == there[name].keys()
        assert cell["timing"].keys() == there[name]["timing"].keys()
        assert cell["identity"] == there[name]["identity"]
    assert company(request_.out) == {name: [1, 2, 3] for name in here}
    assert company(separate.out) == {name: [int(name[-1])] for name in there}
    assert not (request_.out / STATUS).exists()
    assert run_grid(replace(request_, stack_seeds=False)).found == 6  # the same cells, however they were trained


def test_finished_cells_are_left_out_of_a_stack(request_: Request) -> None:
    run_grid(replace(request_, seeds=[2], stack_seeds=False))
    before = cells(request_.out)
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found) == (4, 2)
    after = cells(request_.out)
    assert all(after[name] == cell for name, cell in before.items())
    assert company(request_.out)["rte-1"] == company(request_.out)["cola-3"] == [1, 3]


def test_a_deleted_cell_of_a_stack_is_trained_in_the_same_company_to_the_same_bits(request_: Request) -> None:
    run_grid(request_)
    before, complete = cells(request_.out), untimed(request_.out)
    next(request_.out.glob("cells/*/rte-2.json")).unlink()
    outcome = run_grid(replace(request_, seeds=[2, 4]))
    assert (outcome.trained, outcome.found) == (3, 1)
    after = cells(request_.out)
    assert {name: cell for name, cell in untimed(request_.out).items() if not name.endswith("4")} == complete
    assert all(after[name] == before[name] for name in before if name != "rte-2")
    assert company(request_.out)["rte-2"] == [1, 2, 3]
    assert company(request_.out)["rte-4"] == [4]


def test_a_stack_that_does_not_fit_into_the_memory_is_trained_one_after_another_and_that_is_said(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    separate = replace(request_, out=tmp_path / "separate", stack_seeds=False)
    run_grid(separate)
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.together:1:memory")
    told: list[str] = []
    assert run_grid(request_, notice=told.append).trained == 6
    assert told == ["pairwise rte-1, 2, 3: too much for the memory at once, trained one after another"]
    assert company(request_.out) == {
        **{f"rte-{seed}": [seed] for seed in (1, 2, 3)},
        **{f"cola-{seed}": [1, 2, 3] for seed in (1, 2, 3)},
    }
    expected = untimed(separate.out)
    assert all(cell == expected[name] for name, cell in untimed(request_.out).items() if name.startswith("rte"))


def test_every_cell_of_a_stack_that_fails_is_named_and_tried_again_on_request(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.together:1:full")
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.left) == (3, 0)
    assert set(outcome.failed) == {"pairwise rte-1", "pairwise rte-2", "pairwise rte-3"}
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    assert set(run_grid(request_).failed) == set(outcome.failed)
    assert run_grid(replace(request_, retry_failed=True)).trained == 3
    assert company(request_.out)["rte-3"] == [1, 2, 3]


def test_every_seed_that_diverges_is_named_as_a_failure_of_its_own(request_: Request) -> None:
    outcome = run_grid(replace(request_, tasks=[TASKS["rte"]], protocol=Protocol(epochs=1, learning_rate=1e38)))
    assert (outcome.trained, outcome.left) == (0, 0)
    assert outcome.failed == {
        f"pairwise rte-{seed}": f"pairwise, rte, seed {seed}: the training diverged, its loss is no number"
        for seed in (1, 2, 3)
    }
    assert sorted(path.name for path in request_.out.glob("failed/*/*")) == ["rte-1.json", "rte-2.json", "rte-3.json"]


def test_a_stop_request_leaves_all_cells_of_the_stack_at_hand(request_: Request) -> None:
    with StopRequest() as stop:

        def stop_in_the_second_stack(_done: float, total: float | None, facts: Mapping[str, float | str]) -> None:
            assert total == 18  # three steps, three seeds, two tasks
            if str(facts["cell"]).startswith("pairwise cola-1, 2, 3"):
                stop._receive(15, None)

        outcome = run_grid(request_, progress=stop_in_the_second_stack, stop=stop)
    assert (outcome.trained, outcome.left) == (3, 3)
    assert run_grid(request_).trained == 3


def test_slices_keep_the_seeds_of_a_task_together_where_stacks_are_asked_for(request_: Request) -> None:
    assert open_slices(request_, None) == ([0, 1], 2)
    assert [run_grid(replace(request_, slice=f"{number}/2")).trained for number in (0, 1)] == [3, 3]
    assert all(seeds == [1, 2, 3] for seeds in company(request_.out).values())


def test_test_sets_and_noise_are_those_of_each_seed(request_: Request, glue: Path, tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "glue" / "CoLA").mkdir(parents=True, exist_ok=True)
        (tmp_path / "glue" / "CoLA" / name).write_bytes((glue / "CoLA" / name).read_bytes())
    write_tsv(tmp_path / "glue" / "CoLA" / "test.tsv", [["index", "sentence"], ["0", "the cat sees"], ["1", "a dog"]])
    protocol = Protocol(epochs=1, noise="typos", noise_rate=0.9)
    request = replace(request_, data_dir=tmp_path / "glue", tasks=[TASKS["cola"]], protocol=protocol)
    run_grid(request)
    before = untimed(request.out)
    assert all(cell["noise"]["predictions"] for cell in before.values())
    assert run_grid(replace(request, predictions=True)).trained == 3
    after = untimed(request.out)
    assert all(cell.pop("test_data") for cell in after.values())
    assert after == before
    assert len(list(request.out.glob("predictions/*/*/CoLA.tsv"))) == 3


@pytest.mark.slow
def test_workers_train_stacks_to_the_same_cells_as_this_process(request_: Request, tmp_path: Path) -> None:
    run_grid(request_)
    run_grid(replace(request_, out=tmp_path / "workers", workers=2))
    assert untimed(request_.out) == untimed(tmp_path / "workers")
