import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM
from transformers.utils import logging

from tests.train.glue.conftest import CheckpointFactory, write_tsv
from train.glue.checkpoint import find_subject
from train.glue.encode import encode_task
from train.glue.finetune import finetune
from train.glue.grid import run_grid
from train.glue.protocol import Protocol
from train.glue.read import read_task
from train.glue.request import Request
from train.glue.start import save_model
from train.glue.tasks import TASKS


@pytest.fixture(scope="module")
def data(glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small GLUE folder with MNLI: a premise entails itself, contradicts another colour, else is neutral."""
    folder = tmp_path_factory.mktemp("with-mnli")
    shutil.copytree(glue, folder, dirs_exist_ok=True)
    columns = ["index", "sentence1", "sentence2", "gold_label"]
    rows = []
    for number in range(36):
        label = ("entailment", "neutral", "contradiction")[number % 3]
        other = {"entailment": "red", "neutral": "old", "contradiction": "green"}[label]
        rows.append([str(number), f"the red cat sees {'a ' * (number % 5)}dog", f"the {other} cat sees", label])
    for file, part in (("train", rows), ("dev_matched", rows[:12]), ("dev_mismatched", rows[9:])):
        write_tsv(folder / "MNLI" / f"{file}.tsv", [columns, *part])
    return folder


@pytest.fixture
def request_(data: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint()],
        out=tmp_path / "out",
        tasks=[TASKS["rte"], TASKS["cola"]],
        seeds=[1, 2],
        protocol=Protocol(epochs=1, learning_rate=1e-3, mnli_start=True),
        data_dir=data,
        device="cpu",
        workers=1,
    )


def cell(out: Path, name: str) -> dict[str, object]:
    (path,) = out.glob(f"cells/*/{name}.json")
    found = json.loads(path.read_text())
    return {key: found[key] for key in ("identity", "scores", "predictions", "predictions_sha256")}


def test_rte_starts_from_the_model_that_its_own_seed_fine_tuned_on_mnli(request_: Request, data: Path) -> None:
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.failed) == (6, {})  # MNLI comes with it
    subject = find_subject(request_.checkpoints[0], print)
    model = request_.out / "models" / subject.short / "mnli-2"
    encoded = encode_task(read_task(TASKS["rte"], data), subject, 32)
    started = replace(subject, folder=model)
    again = finetune(started, encoded, request_.protocol, 2, torch.device("cpu"), lambda _: None)
    assert again.sha256() == cell(request_.out, "rte-2")["predictions_sha256"]
    plain = replace(request_, out=request_.out.with_name("plain"), protocol=Protocol(epochs=1, learning_rate=1e-3))
    run_grid(plain)
    assert cell(plain.out, "rte-2")["predictions_sha256"] != again.sha256()
    one, other = cell(plain.out, "cola-2"), cell(request_.out, "cola-2")
    assert one["predictions_sha256"] == other["predictions_sha256"]  # CoLA does not start from it
    assert "mnli_start" not in json.loads((plain.out / "grid.json").read_text())["protocol"]
    assert json.loads((request_.out / "grid.json").read_text())["protocol"]["mnli_start"] is True


def test_an_mnli_model_that_is_needed_and_gone_is_made_again(request_: Request) -> None:
    request_ = replace(request_, tasks=[TASKS["rte"]])
    run_grid(request_)
    before = {name: cell(request_.out, name) for name in ("mnli-1", "mnli-2", "rte-1", "rte-2")}
    shutil.rmtree(request_.out / "models")
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found) == (0, 4)  # nothing needs it
    next(request_.out.glob("cells/*/rte-2.json")).unlink()
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found) == (2, 2)
    assert {name: cell(request_.out, name) for name in before} == before


def test_keeping_a_model_shows_nothing(
    request_: Request, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)  # as in a process of one's own
    save_model(tmp_path / "model", AutoModelForMaskedLM.from_pretrained(request_.checkpoints[0]))
    assert (tmp_path / "model" / "config.json").is_file()
    assert "shard" not in capfd.readouterr().err


def test_several_workers_wait_for_mnli(request_: Request, tmp_path: Path) -> None:
    request_ = replace(request_, tasks=[TASKS["rte"]], seeds=[1])
    run_grid(request_)
    workers = replace(request_, out=tmp_path / "workers", workers=2)
    run_grid(workers)
    assert cell(workers.out, "rte-1") == cell(request_.out, "rte-1")


def test_a_cell_whose_mnli_cell_failed_is_named_with_that_reason(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.begin:1:full")
    outcome = run_grid(replace(request_, tasks=[TASKS["rte"]]))
    reasons = {name.partition(" ")[2]: reason for name, reason in outcome.failed.items()}
    assert reasons.keys() == {"mnli-1", "rte-1"}
    assert reasons["rte-1"] == "the cell that it starts from, mnli-1, has left no model"
    assert (outcome.trained, outcome.left) == (2, 0)
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    again = run_grid(replace(request_, tasks=[TASKS["rte"]]))
    assert again.failed.keys() == outcome.failed.keys()
    assert run_grid(replace(request_, tasks=[TASKS["rte"]], retry_failed=True)).trained == 2


def cut_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-300])


def cut_the_configuration(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:40])


def name_another_kind_of_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def take_the_weights_away(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "damage", [cut_the_weights, cut_the_configuration, name_another_kind_of_model, take_the_weights_away]
)
def test_a_damaged_mnli_model_is_made_again_once_it_is_deleted_as_the_failure_says(
    request_: Request, damage: Callable[[Path], None]
) -> None:
    request_ = replace(request_, tasks=[TASKS["rte"]], seeds=[1])
    run_grid(request_)
    before = cell(request_.out, "rte-1")
    next(request_.out.glob("cells/*/rte-1.json")).unlink()
    (folder,) = request_.out.glob("models/*/mnli-1")
    damage(folder)
    (reason,) = run_grid(request_).failed.values()
    assert reason.startswith(f"{folder} is damaged: ")
    assert reason.endswith(f"; delete {folder}: it is made again")
    shutil.rmtree(folder)
    assert run_grid(replace(request_, retry_failed=True)).failed == {}
    assert cell(request_.out, "rte-1") == before


def test_cells_that_start_from_mnli_stay_alone_where_the_rest_is_stacked(request_: Request) -> None:
    outcome = run_grid(replace(request_, stack_seeds=True))
    assert (outcome.trained, outcome.failed) == (6, {})
    together = {
        path.stem: json.loads(path.read_text())["timing"]["seeds_together"]
        for path in request_.out.glob("cells/*/*.json")
    }
    assert together == {
        **{f"mnli-{seed}": [1, 2] for seed in (1, 2)},
        **{f"cola-{seed}": [1, 2] for seed in (1, 2)},
        **{f"rte-{seed}": [seed] for seed in (1, 2)},
    }
