import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForQuestionAnswering, get_linear_schedule_with_warmup

from tests.train.glue.conftest import CheckpointFactory, checkpoint  # noqa: F401 - fixture
from tests.train.watched import READING, Watched
from train.errors import TrainError
from train.glue.checkpoint import find_subject
from train.glue.encode import padded
from train.glue.finetune import epoch_batches, parameter_groups, training_steps
from train.glue.loading import load_with_head
from train.squad.finetune import finetune_squad, span_logits, span_losses
from train.squad.grid import SquadRequest, run_squad
from train.squad.protocol import SquadProtocol, resolve_squad_protocol
from train.squad.read import read_squad
from train.squad.score import scores_of
from train.squad.windows import cut_into_windows

Files = dict[str, tuple[Path, Path]]
SETTINGS = ["max_length=32", "max_question_length=6", "doc_stride=8", "batch_size=8"]


@pytest.fixture
def request_(squad: Files, checkpoint: CheckpointFactory, tmp_path: Path) -> SquadRequest:  # noqa: F811
    return SquadRequest(
        checkpoints=[checkpoint("original")],
        out=tmp_path / "out",
        data=read_squad(*squad["2.0"]),
        seeds=[1, 2],
        protocol=resolve_squad_protocol("2.0", [*SETTINGS, "epochs=1"]),
        device="cpu",
        workers=1,
    )


def cells(out: Path) -> dict[str, dict[str, object]]:
    found = {path.name: json.loads(path.read_text()) for path in sorted(out.glob("cells/*/*"))}
    for cell in found.values():
        cell.pop("timing")
    return found


def test_every_cell_is_trained_once_and_a_deleted_one_again_with_the_same_answers(request_: SquadRequest) -> None:
    outcome = run_squad(request_)
    assert (outcome.trained, outcome.found, outcome.failed) == (2, 0, {})
    before = cells(request_.out)
    assert before.keys() == {"squad-1.json", "squad-2.json"}
    next(request_.out.glob("cells/*/squad-2.json")).unlink()
    outcome = run_squad(request_)
    assert (outcome.trained, outcome.found) == (1, 1)
    assert cells(request_.out) == before
    record = json.loads((request_.out / "grid.json").read_text())
    assert record["tasks"]["squad"]["rows"]["validation_without_answer"] == 8
    assert record["tasks"]["squad"]["source"] == "JSON, version 2.0"


def test_the_cells_scores_are_those_of_its_predictions(request_: SquadRequest) -> None:
    outcome = run_squad(replace(request_, seeds=[1]))
    (cell,) = cells(request_.out).values()
    data = request_.data
    assert cell["predictions"].keys() == {question.name for question in data.validation}  # type: ignore[attr-defined]
    assert cell["scores"] == scores_of(data.validation, cell["predictions"], "2.0")  # type: ignore[arg-type]
    ((name, table),) = outcome.table.models.items()
    assert name == "original"
    assert table["f1"].values == (cell["scores"]["f1"],)  # type: ignore[index]
    text = (request_.out / "table.md").read_text()
    assert text.splitlines()[0].startswith("| model | exact match | F1 | exact match, has answer")


def test_an_edited_cell_is_refused(request_: SquadRequest) -> None:
    run_squad(replace(request_, seeds=[1]))
    (path,) = request_.out.glob("cells/*/*.json")
    whole = json.loads(path.read_text("utf-8"))
    for change, problem in (
        ({"scores": {**whole["scores"], "f1": 0.99}}, "its f1 is 0.99, its predictions score"),
        ({"predictions": {}}, "it has no answer to the question"),
    ):
        path.write_text(json.dumps(whole | change), "utf-8")
        with pytest.raises(TrainError, match=f"{path} is damaged: {problem}"):
            run_squad(request_)


@pytest.mark.slow
def test_two_workers_answer_as_this_process_does(request_: SquadRequest, tmp_path: Path) -> None:
    run_squad(request_)
    run_squad(replace(request_, out=tmp_path / "workers", workers=2))
    assert cells(tmp_path / "workers") == cells(request_.out)


def test_a_failed_cell_is_named_and_tried_again_on_request(
    request_: SquadRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.begin:1:full")
    outcome = run_squad(request_)
    assert (outcome.trained, outcome.left) == (1, 0)
    assert outcome.failed["original squad-1"].startswith("OSError: [Errno 28] No space left on device")
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    again = run_squad(request_)
    assert (again.trained, again.found) == (0, 1)
    assert again.failed["original squad-1"].endswith("(in an earlier run)")
    assert run_squad(replace(request_, retry_failed=True)).trained == 1


def test_another_protocol_data_or_kind_of_folder_is_refused(request_: SquadRequest, squad: Files) -> None:
    run_squad(replace(request_, seeds=[1]))
    other = request_.protocol.model_copy(update={"null_threshold": 1.0})
    with pytest.raises(TrainError, match=r"was made otherwise: null_threshold: 0\.0 → 1\.0"):
        run_squad(replace(request_, protocol=other))
    with pytest.raises(TrainError, match=r"squad\.data: "):
        run_squad(replace(request_, data=read_squad(*squad["1.1"])))
    grid = json.loads((request_.out / "grid.json").read_text())
    grid["tasks"] = {"rte": {"data": "0"}}
    (request_.out / "grid.json").write_text(json.dumps(grid))
    with pytest.raises(TrainError, match="is a GLUE folder, expected one of symbert squad"):
        run_squad(request_)


def test_a_model_learns_to_answer_and_when_not_to(request_: SquadRequest) -> None:
    settings = [*SETTINGS, "epochs=40", "learning_rate=3e-3"]
    run_squad(replace(request_, seeds=[1], protocol=resolve_squad_protocol("2.0", settings)))
    (cell,) = cells(request_.out).values()
    scores = cell["scores"]
    assert scores["has_answer_f1"] > 0.8 < scores["no_answer_exact_match"]  # type: ignore[index]


def test_positions_that_pre_training_never_reached_are_named(request_: SquadRequest, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    shutil.copytree(request_.checkpoints[0], folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "trained_positions": 24}), "utf-8")
    said: list[str] = []
    run_squad(replace(request_, checkpoints=[folder], seeds=[]), notice=said.append)
    assert said == [
        "short: pre-training never reached positions 25 to 32: its samples had 24 tokens; "
        "--set max_length=24 leaves them out"
    ]


def test_training_is_that_of_a_plain_loop_with_transformers_own_loss(
    request_: SquadRequest, squad: Files, tmp_path: Path
) -> None:
    from tests.train.glue.test_finetune import without_dropout

    subject = find_subject(without_dropout(request_.checkpoints[0], tmp_path / "copy"), print)
    protocol = SquadProtocol(
        max_length=32, max_question_length=6, doc_stride=8, batch_size=7, epochs=2, learning_rate=1e-3
    )
    data = read_squad(*squad["1.1"])
    train, validation = (cut_into_windows(split, subject, protocol) for split in (data.train, data.validation))
    answered = finetune_squad(
        subject, train, (data.validation, validation), (protocol, "1.1"), 3, torch.device("cpu"), lambda _: None
    )
    model = load_with_head(subject, AutoModelForQuestionAnswering, 3).eval()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=1e-3)
    rows_in_all = len(train.windows)
    steps = 2 * math.ceil(rows_in_all / 7)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * steps), steps)
    total = 0.0
    for epoch in range(2):
        for rows in epoch_batches(rows_in_all, 7, 3, epoch):
            inputs = padded(train.encoded, rows, model.device)
            out = model(**inputs)
            hidden = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])) == 0
            first, last = torch.from_numpy(train.encoded.labels[rows]).unbind(1)
            start, end = (logits.masked_fill(hidden, -torch.inf) for logits in (out.start_logits, out.end_logits))
            loss = (F.cross_entropy(start, first) + F.cross_entropy(end, last)) / 2
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += float(loss.detach()) * len(rows) * (epoch == 1)
    assert answered.training_loss == pytest.approx(total / rows_in_all, rel=1e-4)
    assert len(span_logits(model, validation.encoded, protocol)) == len(validation.windows)


def test_a_step_computes_nothing_that_a_gpu_waits_for_or_refuses_for_lack_of_determinism(
    request_: SquadRequest,
) -> None:
    subject = find_subject(request_.checkpoints[0], print)
    windows = cut_into_windows(request_.data.train, subject, request_.protocol)
    model = load_with_head(subject, AutoModelForQuestionAnswering, 1)
    steps = training_steps(model, windows.encoded, request_.protocol, 1, span_losses)
    with Watched() as watched:
        next(steps)
    assert {"nll_loss_forward", "nll_loss_backward"} <= watched.names
    assert not {name for name in watched.names if "nll_loss2d" in name}
    assert not watched.names & READING
