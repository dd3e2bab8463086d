"""A report on damaged folders is one line that names the file, never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from report.build import Inputs, build_report
from report.errors import ReportError
from report.published import read_published
from tests.report.conftest import Study
from train.errors import TrainError

Change = Callable[[Any], Any]


def put(key: str, value: Any) -> Change:
    """Sets `a.b` to a value; `...` takes it away."""

    def change(document: Any) -> Any:
        *sections, last = key.split(".")
        found = document
        for section in sections:
            found = found[section]
        if value is ...:
            del found[last]
        else:
            found[last] = value
        return document

    return change


def edit(path: Path, change: Change) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


def copied_run(study: Study, folder: Path, number: int = 0) -> Path:
    return shutil.copytree(study.runs[number], folder, ignore=shutil.ignore_patterns("checkpoints"))


def refused(inputs: Inputs, path: Path, *reasons: str) -> None:
    with pytest.raises((ReportError, TrainError)) as caught:
        build_report(inputs)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "is damaged" in said or "does not belong here" in said
    assert all(reason in said for reason in reasons), said
    assert caught.value.__notes__


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("evaluation", "evaluation_loss", float("inf")),
        ("evaluation", "evaluation_loss", float("nan")),
        ("evaluation", "evaluation_loss", None),
        ("evaluation", "evaluation_standard_error", "small"),
        ("evaluation", "evaluation_accuracy", "high"),
        ("evaluation", "tokens", 1.5),
        ("evaluation", "step", "first"),
        ("train", "tokens_per_second", "fast"),
        ("train", "step", ...),
    ],
)
def test_a_row_of_metrics_that_is_no_number_is_refused(
    study: Study, tmp_path: Path, kind: str, key: str, value: Any
) -> None:
    path = copied_run(study, tmp_path / "run") / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    put(key, value)(next(row for row in rows if row["kind"] == kind))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    refused(Inputs((path.parent,)), path, f"`{key}` is ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("identity", None),
        ("identity", []),
        ("identity.corpus_hash", 5),
        ("invocations", "x"),
        ("invocations", [None]),
        ("assumptions", ["one"]),
        ("unigram_entropy", [1]),
    ],
)
def test_an_environment_of_wrong_types_is_refused(study: Study, tmp_path: Path, key: str, value: Any) -> None:
    path = copied_run(study, tmp_path / "run") / "environment.json"
    edit(path, put(key, value))
    refused(Inputs((path.parent,)), path, f"`{key}")


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", '"two"'), ("max_steps", '"20"'), ("sequence_length", "[32]"), ("hidden_size", "0")],
)
def test_a_recipe_of_wrong_types_is_refused(study: Study, tmp_path: Path, key: str, value: str) -> None:
    path = copied_run(study, tmp_path / "run") / "recipe.toml"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines), "utf-8")
    refused(Inputs((path.parent,)), path, f"{key}` is ")


@pytest.mark.parametrize("second", [1, 2])
def test_runs_without_a_common_evaluation_are_shown(study: Study, tmp_path: Path, second: int) -> None:
    folders = [copied_run(study, tmp_path / name, number) for name, number in (("a", 0), ("b", second))]
    for parity, folder in enumerate(folders):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        kept = [row for row in rows if row["kind"] != "evaluation" or row["step"] // 2 % 2 == parity]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    for name in ("page.html", "page.md"):
        assert run(["report", *map(str, folders), "--out", str(tmp_path / name), "--quiet"]) == 0
    assert "No step is there at which all of them were evaluated." in (tmp_path / "page.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("corpus_hash", ...),
        ("corpus_hash", 5),
        ("sequence_length", ...),
        ("sequence_length", "32"),
        ("configuration", ...),
        ("configuration", []),
        ("tokenizer", ...),
        ("tokenizer.name", None),
        ("ledger", []),
        ("ledger.tail", ...),
        ("ledger.kept", "90"),
        ("ledger.dropped", {"blocklist": None}),
        ("ledger.samples", [1]),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(study: Study, tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "manifest.json"
    shutil.copy(study.corpus / "manifest.json", path)
    edit(path, put(key, value))
    refused(Inputs(corpus=tmp_path), path, f"`{key}")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("identity", {}, "`identity.weights` is missing"),
        ("identity.seed", "1", "`identity.seed` is '1', expected a valid integer"),
        ("identity.task", "chess", "grid.json lists no task `chess`"),
        ("identity.task", ["cola"], "`identity.task` is ['cola']"),
        ("identity.weights", "0" * 64, "grid.json lists no checkpoint"),
        ("scores", {}, "it has no score `matthews_correlation`"),
        ("scores", {"matthews_correlation": "high"}, "`scores.matthews_correlation` is 'high'"),
        ("predictions", {"validation": 1}, "`predictions.validation` is 1"),
    ],
)
def test_a_cell_of_wrong_types_is_refused(study: Study, tmp_path: Path, key: str, value: Any, reason: str) -> None:
    folder = shutil.copytree(study.glue, tmp_path / "glue")
    path = min((folder / "cells").glob("*/*.json"))
    edit(path, put(key, value))
    refused(Inputs(glue=folder), path, reason)


def test_a_folder_named_like_a_cell_is_refused(study: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(study.glue, tmp_path / "glue")
    path = folder / "cells" / "abc" / "cola-1.json"
    path.mkdir(parents=True)
    refused(Inputs(glue=folder), path, "it is a folder, expected a JSON file")


def test_a_grid_without_its_checkpoints_is_refused(study: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(study.glue, tmp_path / "glue")
    edit(folder / "grid.json", put("checkpoints", {}))
    refused(Inputs(glue=folder), min((folder / "cells").glob("*/*.json")), "grid.json lists no checkpoint")


@pytest.mark.parametrize("value", [[], None, {"validation": 1}, {"validation": [1, 0]}, {"validation": "\ud800"}])
def test_labels_of_wrong_types_are_refused(study: Study, tmp_path: Path, value: Any) -> None:
    folder = shutil.copytree(study.glue, tmp_path / "glue")
    path = folder / "labels" / "cola.json"
    edit(path, put("labels", value))
    refused(Inputs(glue=folder), path)


LOSSES = "size,operator,step,loss\n"
GLUE = "size,operator,seed,task,metric,value\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("validation_loss.csv", f"{LOSSES}base,original,1.5,2.0\n", "line 2, is damaged"),
        ("validation_loss.csv", f"{LOSSES}base,original,1,inf\n", "expected a finite number as loss"),
        ("validation_loss.csv", f"{LOSSES}base,original,1\n", "expected a finite number as loss"),
        ("validation_loss.csv", f"{LOSSES}base\n", "expected a name"),
        ("validation_loss.csv", f"{LOSSES}base,origin\xe9l,1,2.0\n", "can't decode"),
        ("validation_loss.csv", LOSSES, "is damaged: it holds no row"),
        (
            "glue_per_seed.csv",
            f"{GLUE}base,original,1,cola,elegance,0.5\n",
            "`matthews_correlation` of base original, cola, seed 1, is missing",
        ),
        ("glue_per_seed.csv", f"{GLUE}base,original,1,chess,accuracy,0.5\n", "`chess` is not a task"),
        (
            "glue_per_seed.csv",
            f"{GLUE}base,original,1,mrpc,accuracy,0.5\n",
            "`f1` of base original, mrpc, seed 1, is missing",
        ),
    ],
)
def test_a_damaged_published_file_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ReportError) as caught:
        read_published(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert reason in str(caught.value)
