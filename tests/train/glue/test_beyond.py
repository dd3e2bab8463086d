"""Massive and Emotion, which stand beside GLUE's tasks."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.train.glue.conftest import CheckpointFactory, write_tsv
from train.errors import TrainError
from train.glue.cells import values_as_text, values_from_text
from train.glue.degenerate import ONE_ANSWER
from train.glue.grid import run_grid
from train.glue.protocol import Protocol, resolve_protocol
from train.glue.read import from_datasets, read_task
from train.glue.request import Request
from train.glue.score import model_scores
from train.glue.table import table_of
from train.glue.tasks import TASKS

MASSIVE, EMOTION = TASKS["massive"], TASKS["emotion"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beyond")
    intents, feelings = list(MASSIVE.classes), list(EMOTION.classes)
    massive = [[f"{'old ' * (number % 6)}cat sees", intents[number * 7 % 60]] for number in range(30)]
    emotion = [[f"a {('red', 'small')[number % 2]} dog", feelings[number % 2]] for number in range(30)]
    for name, rows in (("MASSIVE", massive), ("Emotion", emotion)):
        for file in ("train", "dev"):
            write_tsv(folder / name / f"{file}.tsv", [["text", "label"], *rows])
    return folder


@pytest.fixture
def request_(data: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint()],
        out=tmp_path / "out",
        tasks=[MASSIVE, EMOTION],
        seeds=[1],
        protocol=resolve_protocol(["epochs=2"]),
        data_dir=data,
        device="cpu",
        workers=1,
    )


def test_the_papers_settings_hold_for_its_tasks_unless_one_is_given() -> None:
    protocol = resolve_protocol(["epochs=3"])
    massive = protocol.of_task(MASSIVE)
    assert (massive.epochs, massive.batch_size, massive.learning_rate) == (3, 64, 5e-5)
    assert Protocol().of_task(MASSIVE).epochs == 15
    assert Protocol().of_task(EMOTION).epochs == 10
    assert protocol.of_task(TASKS["rte"]) == protocol
    searched = Protocol().model_copy(update={"learning_rate": 1e-3})
    assert searched.of_task(MASSIVE).learning_rate == 1e-3


def test_they_are_cells_of_the_grid_with_their_own_settings_and_no_part_of_the_average(request_: Request) -> None:
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.failed) == (2, {})
    assert run_grid(request_).found == 2
    cells = {path.stem: json.loads(path.read_text()) for path in request_.out.glob("cells/*/*.json")}
    protocol = cells["massive-1"]["identity"]["protocol"]
    assert (protocol["batch_size"], protocol["learning_rate"], protocol["epochs"]) == (64, 5e-5, 2)
    predictions = values_from_text(MASSIVE, cells["massive-1"]["predictions"]["validation"])
    labels = read_task(MASSIVE, request_.data_dir).validation["validation"].labels
    assert cells["massive-1"]["scores"] == {"accuracy": float(np.mean(predictions == labels))}
    table = outcome.table
    assert table.rows[0].scores.average is None
    assert table.numbers[-2:] == ("massive", "emotion")
    notes = " ".join(table.notes())
    assert "massive: no part of the average; unless set, learning_rate 5e-05, batch_size 64, epochs 15" in notes


def test_a_setting_that_is_given_makes_another_cell_though_it_is_the_default_elsewhere(request_: Request) -> None:
    request_ = replace(request_, tasks=[EMOTION], protocol=Protocol())
    run_grid(request_)
    for seeds in ([1], [2]):
        with pytest.raises(TrainError, match=r"was made otherwise: emotion\.settings\.epochs: 10 → 5"):
            run_grid(replace(request_, protocol=Protocol(epochs=5), seeds=seeds))


def test_predictions_of_sixty_classes_are_kept_without_loss() -> None:
    values = np.array([3, 59, 0, 11, 11], np.int64)
    assert values_as_text(MASSIVE, values) == "3 59 0 11 11"
    assert np.array_equal(values_from_text(MASSIVE, "3 59 0 11 11"), values)


def test_one_intent_for_everything_is_flagged() -> None:
    def cell(predictions: str) -> dict[str, object]:
        identity = {"weights": "w", "task": "massive", "seed": 1}
        return {"identity": identity, "scores": {"accuracy": 0.1}, "predictions": {"validation": predictions}}

    grid = {"checkpoints": {"w": {"name": "m"}}, "protocol": {}, "tasks": {"massive": {}}}
    assert table_of([cell("12 12")], grid).rows[0].degenerate == {("massive", 1): ONE_ANSWER}
    assert table_of([cell("12 21")], grid).rows[0].degenerate == {}
    assert model_scores({("massive", 1): {"accuracy": 0.1}}).average is None


def test_the_hubs_columns_and_labels_are_checked() -> None:
    features = datasets.Features(
        {"utt": datasets.Value("string"), "intent": datasets.ClassLabel(names=list(MASSIVE.classes))}
    )
    rows = datasets.Dataset.from_dict({"utt": ["the cat", "a dog"], "intent": [59, 1]}, features=features)
    data = from_datasets(MASSIVE, {"train": rows, "validation": rows})
    assert data.train.text == (["the cat", "a dog"],)
    assert data.train.labels.tolist() == [59, 1]
    with pytest.raises(TrainError, match=r"AmazonScience/massive, massive, train: column `intent` is missing"):
        from_datasets(MASSIVE, {"train": rows.remove_columns("intent"), "validation": rows})
