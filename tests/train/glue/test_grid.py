import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from durable.errors import DurableError
from durable.locks import folder_lock
from durable.signals import StopRequest
from tests.train.glue.conftest import CheckpointFactory, write_tsv
from train.errors import TrainError
from train.glue.cells import leaderboard_text
from train.glue.checkpoint import find_subject
from train.glue.grid import run_grid
from train.glue.protocol import ASSUMPTIONS, Protocol, resolve_protocol
from train.glue.request import Request
from train.glue.tasks import TASKS


@pytest.fixture
def request_(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> Request:
    return Request(
        checkpoints=[checkpoint()],
        out=tmp_path / "out",
        tasks=[TASKS["cola"], TASKS["rte"]],
        seeds=[1, 2],
        protocol=Protocol(epochs=1),
        data_dir=glue,
        device="cpu",
        workers=1,
    )


def cells(out: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(out.glob("cells/*/*"))}


def scores(content: bytes) -> tuple[object, ...]:
    cell = json.loads(content)
    return cell["scores"], cell["predictions"], cell["predictions_sha256"], cell["identity"]


def test_every_cell_is_trained_once_and_found_the_second_time(request_: Request) -> None:
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found, outcome.left) == (4, 0, 0)
    before = cells(request_.out)
    assert {name.partition("/")[2] for name in before} == {"cola-1.json", "cola-2.json", "rte-1.json", "rte-2.json"}
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.found) == (0, 4)
    assert cells(request_.out) == before


@pytest.mark.parametrize(("max_length", "said"), [(8, []), (16, [16]), (128, [32])])
def test_positions_that_pre_training_never_reached_are_named_where_inputs_may(
    request_: Request, tmp_path: Path, max_length: int, said: list[int]
) -> None:
    folder = tmp_path / "short"
    shutil.copytree(request_.checkpoints[0], folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "trained_positions": 8}), "utf-8")
    request = replace(request_, checkpoints=[folder], protocol=Protocol(epochs=1, max_length=max_length))
    heard: list[str] = []
    run_grid(replace(request, tasks=[TASKS["cola"]], seeds=[1]), notice=heard.append)
    assert heard == [
        f"short: pre-training never reached positions 9 to {last}: its samples had 8 tokens; "
        "--set max_length=8 leaves them out"
        for last in said
    ]


def test_the_score_of_a_checkpoint_is_known_whether_or_not_its_trained_positions_are(
    request_: Request, tmp_path: Path
) -> None:
    shutil.copytree(request_.checkpoints[0], tmp_path / "same")
    config = json.loads((tmp_path / "same" / "config.json").read_text("utf-8"))
    (tmp_path / "same" / "config.json").write_text(json.dumps({**config, "trained_positions": 8}), "utf-8")
    one, other = (find_subject(folder, print) for folder in (request_.checkpoints[0], tmp_path / "same"))
    assert one.model == other.model


def test_a_deleted_cell_alone_is_trained_again_with_the_same_scores(request_: Request) -> None:
    run_grid(request_)
    before = cells(request_.out)
    name = next(name for name in before if name.endswith("rte-2.json"))
    (request_.out / "cells" / name).unlink()
    assert run_grid(request_).trained == 1
    after = cells(request_.out)
    assert scores(after[name]) == scores(before[name])
    assert all(after[other] == before[other] for other in before if other != name)


def test_models_seeds_and_tasks_may_be_added_to_a_folder(request_: Request, checkpoint: CheckpointFactory) -> None:
    run_grid(replace(request_, tasks=[TASKS["cola"]], seeds=[1]))
    more = replace(request_, checkpoints=[checkpoint("symmetric"), checkpoint("pairwise")])
    outcome = run_grid(more)
    assert (outcome.trained, outcome.found) == (7, 1)
    assert [row.name for row in outcome.table.rows] == ["pairwise", "symmetric"]
    assert run_grid(replace(request_, seeds=[2], tasks=[TASKS["rte"]])).table == outcome.table


def test_another_protocol_is_refused_with_the_difference_and_nothing_changes(request_: Request) -> None:
    run_grid(request_)
    before = {path: path.read_bytes() for path in request_.out.rglob("[!.]*") if path.is_file()}
    other = replace(request_, protocol=Protocol(epochs=1, learning_rate=2e-5))
    with pytest.raises(TrainError, match=r"was made otherwise: learning_rate: 1e-05 → 2e-05") as caught:
        run_grid(other)
    assert "another --out" in caught.value.__notes__[0]
    assert {path: path.read_bytes() for path in before} == before


def test_other_data_under_the_same_name_is_refused(request_: Request, tmp_path: Path) -> None:
    run_grid(replace(request_, tasks=[TASKS["cola"]]))
    for file in ("train.tsv", "dev.tsv"):
        (tmp_path / "data" / "CoLA").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "CoLA" / file).write_text("gj04\t1\t\ta dog sees\n")
    with pytest.raises(TrainError, match=r"was made otherwise: cola\.data: "):
        run_grid(replace(request_, tasks=[TASKS["cola"]], data_dir=tmp_path / "data"))


def test_a_stop_request_keeps_what_is_finished_and_leaves_the_rest(request_: Request) -> None:
    with StopRequest() as stop:
        seen: list[str] = []

        def stop_in_the_third_cell(_done: float, _total: float | None, facts: Mapping[str, float | str]) -> None:
            seen.append(str(facts["cell"]))
            if len(set(seen)) == 3:
                stop._receive(15, None)

        outcome = run_grid(request_, progress=stop_in_the_third_cell, stop=stop)
    assert (outcome.trained, outcome.left) == (2, 2)
    assert len(cells(request_.out)) == 2
    assert (request_.out / "table.md").is_file()
    assert run_grid(request_).trained == 2


@pytest.mark.slow
def test_two_workers_make_the_same_cells_as_this_process(request_: Request, tmp_path: Path) -> None:
    run_grid(request_)
    outcome = run_grid(replace(request_, out=tmp_path / "workers", workers=2))
    assert outcome.trained == 4
    here, there = cells(request_.out), cells(tmp_path / "workers")
    assert here.keys() == there.keys()
    assert [scores(content) for content in here.values()] == [scores(content) for content in there.values()]


def test_a_failed_cell_is_named_the_others_go_on_and_it_is_tried_again_on_request(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "finetune.begin:2:full")
    outcome = run_grid(request_)
    assert (outcome.trained, outcome.left) == (3, 0)
    ((name, reason),) = outcome.failed.items()
    assert name.startswith("pairwise ")
    assert reason.startswith("OSError: [Errno 28] No space left on device")
    assert len(cells(request_.out)) == 3
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    again = run_grid(request_)
    assert (again.trained, again.found, again.left) == (0, 3, 0)
    assert again.failed == {name: f"{reason} (in an earlier run)"}
    assert f"pairwise: {name.partition(' ')[2]} failed: {reason}" in again.table.notes()
    assert run_grid(replace(request_, seeds=[3])).failed == {}  # it was not asked for
    outcome = run_grid(replace(request_, retry_failed=True))
    assert (outcome.trained, outcome.found, outcome.failed) == (1, 3, {})
    assert not any("failed" in note for note in outcome.table.notes())
    assert run_grid(request_).found == 4


def test_damaged_encoded_rows_are_made_again_once_they_are_deleted_as_the_failure_says(request_: Request) -> None:
    request_ = replace(request_, tasks=[TASKS["cola"]], seeds=[1])
    run_grid(request_)
    before = cells(request_.out)
    next(request_.out.glob("cells/*/cola-1.json")).unlink()
    (path,) = request_.out.glob("encoded/cola-*/train.arrow")
    path.write_bytes(path.read_bytes()[:-300])
    (reason,) = run_grid(request_).failed.values()
    assert reason == f"{path} is damaged; delete {path.parent}: it is made again"
    shutil.rmtree(path.parent)
    assert run_grid(replace(request_, retry_failed=True)).failed == {}
    assert [scores(content) for content in cells(request_.out).values()] == [scores(old) for old in before.values()]


def test_noise_is_scored_beside_the_clean_sentences_and_does_not_touch_them(
    request_: Request, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    protocol = Protocol(epochs=12, learning_rate=3e-3)
    model = [checkpoint("original")]
    request_ = replace(request_, checkpoints=model, protocol=protocol, tasks=[TASKS["cola"]], seeds=[1])
    clean = run_grid(request_).table
    protocol = Protocol(epochs=12, learning_rate=3e-3, noise="typos", noise_rate=0.9)
    outcome = run_grid(replace(request_, out=tmp_path / "noisy", protocol=protocol))
    assert [row.name for row in outcome.table.rows] == ["original", "original, typos 0.9"]
    assert outcome.table.rows[0].scores.numbers.keys() == clean.rows[0].scores.numbers.keys()
    texts = [json.loads(content)["predictions"] for content in cells(request_.out).values()]
    noisy = [json.loads(content) for content in cells(tmp_path / "noisy").values()]
    assert [cell["predictions"] for cell in noisy] == texts
    assert [cell["noise"]["predictions"] for cell in noisy] != texts
    with pytest.raises(TrainError, match="noise: 'typos' → absent"):
        run_grid(replace(request_, out=tmp_path / "noisy"))


def test_predictions_of_the_test_sets_are_in_the_leaderboards_layout(
    request_: Request, glue: Path, tmp_path: Path
) -> None:
    run_grid(request_)
    before = cells(request_.out)
    shutil.copytree(glue, tmp_path / "glue")
    write_tsv(tmp_path / "glue" / "CoLA" / "test.tsv", [["index", "sentence"], ["0", "the cat sees"], ["1", "a dog"]])
    rte = [["index", "sentence1", "sentence2"], *([str(row), "the cat", "a small dog"] for row in range(3))]
    write_tsv(tmp_path / "glue" / "RTE" / "test.tsv", rte)
    with_tests = replace(request_, data_dir=tmp_path / "glue", predictions=True)
    assert run_grid(with_tests).trained == 4
    assert [scores(content) for content in cells(request_.out).values()] == [scores(old) for old in before.values()]
    files = sorted(path.relative_to(request_.out).parts[2:] for path in request_.out.glob("predictions/*/*/*.tsv"))
    assert files == [("1", "CoLA.tsv"), ("1", "RTE.tsv"), ("2", "CoLA.tsv"), ("2", "RTE.tsv")]
    lines = next(request_.out.glob("predictions/*/1/RTE.tsv")).read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.partition("\t")[0] for line in lines[1:]] == ["0", "1", "2"]
    assert {line.partition("\t")[2] for line in lines[1:]} <= {"entailment", "not_entailment"}
    assert run_grid(with_tests).trained == 0
    write_tsv(tmp_path / "glue" / "RTE" / "test.tsv", rte[:-1])
    assert run_grid(with_tests).trained == 2
    assert next(request_.out.glob("predictions/*/1/RTE.tsv")).read_text().splitlines() == lines[:-1]
    with pytest.raises(TrainError, match=r"CoLA/test\.tsv does not exist, expected the test set of cola"):
        run_grid(replace(with_tests, data_dir=glue))


def test_scores_of_stsb_stay_within_their_range_in_the_leaderboards_file() -> None:
    predictions = np.array([-0.25, 2.5, 5.5], np.float32)
    assert leaderboard_text(TASKS["stsb"], predictions) == "index\tprediction\n0\t0.000\n1\t2.500\n2\t5.000\n"


def test_the_longest_task_comes_first_and_the_table_grows_with_every_cell(request_: Request) -> None:
    order: list[str] = []
    rows: list[int] = []

    def look(_done: float, _total: float | None, facts: Mapping[str, float | str]) -> None:
        if facts["cell"] not in order:
            order.append(str(facts["cell"]))
            models = json.loads((request_.out / "table.json").read_text())["models"]
            rows.append(sum(len(number["seeds"]) for model in models for number in model["numbers"].values()))

    run_grid(request_, progress=look)
    assert [name.partition(" ")[2] for name in order] == ["rte-1", "rte-2", "cola-1", "cola-2"]
    assert rows == [0, 1, 2, 3]


def test_the_record_holds_the_protocol_and_every_assumption(request_: Request) -> None:
    run_grid(replace(request_, protocol=resolve_protocol(["epochs=1"])))
    record = json.loads((request_.out / "grid.json").read_text())
    assert record["protocol"] == {**Protocol().record(), "epochs": 1}
    assert record["assumptions"] == ASSUMPTIONS
    assert record["tasks"]["cola"]["rows"] == {"train": 40, "validation": 18}
    (facts,) = record["checkpoints"].values()
    assert facts["operator"] == "pairwise"
    assert facts["max_length"] == 32  # the model has no more positions


def test_a_folder_in_use_by_another_run_is_refused(request_: Request) -> None:
    with folder_lock(request_.out), pytest.raises(DurableError, match="is in use by process"):
        run_grid(request_)


def test_a_folder_of_other_things_is_refused_and_left_alone(request_: Request) -> None:
    request_.out.mkdir()
    (request_.out / "thesis.tex").write_text("x")
    with pytest.raises(TrainError, match=r"holds other things \(thesis\.tex\)"):
        run_grid(request_)
    assert [path.name for path in request_.out.iterdir()] == ["thesis.tex"]
    with pytest.raises(TrainError, match="is a file, expected a folder"):
        run_grid(replace(request_, out=request_.out / "thesis.tex"))


def test_bad_input_is_found_before_anything_is_written(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="MRPC does not exist"):
        run_grid(replace(request_, tasks=[TASKS["cola"], TASKS["mrpc"]]))
    with pytest.raises(TrainError, match="nowhere does not exist"):
        run_grid(replace(request_, checkpoints=[tmp_path / "nowhere"]))
    assert not request_.out.exists()


def test_a_damaged_cell_is_an_error_that_names_it(request_: Request) -> None:
    run_grid(request_)
    path = next(request_.out.glob("cells/*/rte-1.json"))
    path.write_text("{")
    with pytest.raises(TrainError, match=r"rte-1\.json is damaged") as caught:
        run_grid(request_)
    assert "delete it" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learning_rat=1", "`learning_rat` is not a protocol key"),
        ("epochs=0", "`epochs` = 0: should be greater than 0"),
        ("epochs=many", "`epochs` = 'many': should be a valid integer"),
        ("precision=float16", "`precision` = 'float16': should be 'float32' or 'bfloat16'"),
        ("learning_rate=inf", "`learning_rate` = inf: should be a finite number"),
        ("adam_epsilon=nan", "`adam_epsilon` = nan: should be a finite number"),
        ("max_gradient_norm=inf", "`max_gradient_norm` = inf: should be a finite number"),
        ("learning_rate=1e39", r"`learning_rate` = 1e\+39: should be at most 3.4e\+38, the largest number of float32"),
        (f"epochs={2**63}", "`epochs` = 9223372036854775808: should have at most 63 bits"),
        (f"batch_size=1{'0' * 5000}", "`batch_size` = '1000"),
    ],
)
def test_a_wrong_protocol_setting_is_an_error(assignment: str, message: str) -> None:
    with pytest.raises(DurableError, match=message):
        resolve_protocol([assignment])


def test_the_refusal_of_an_infinite_norm_says_which_one_clips_nothing() -> None:
    with pytest.raises(DurableError) as caught:
        resolve_protocol(["max_gradient_norm=inf"])
    assert caught.value.__notes__ == ["max_gradient_norm=0 clips nothing"]
    assert resolve_protocol(["max_gradient_norm=0"]).max_gradient_norm == 0


@pytest.mark.slow
def test_the_grid_runs_where_datasets_is_missing(glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['datasets'] = None  # importing it fails\n"
        "from cli.main import run\n"
        "arguments = ['glue', sys.argv[1], '--out', sys.argv[2], '--tasks', 'cola', '--seeds', '1', '--quiet']\n"
        "arguments += ['--set', 'epochs=1', '--workers', '1', '--device', 'cpu']\n"
        "assert run([*arguments, '--data-dir', sys.argv[3]]) == 0\n"
        "assert run(arguments) == 1\n"
    )
    command = [sys.executable, "-c", script, str(checkpoint()), str(tmp_path / "out"), str(glue)]
    found = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "error: reading nyu-mll/glue from the hub needs the package `datasets`" in found.stderr
    assert "hint: pip install datasets, or give the official TSV files by --data-dir" in found.stderr
