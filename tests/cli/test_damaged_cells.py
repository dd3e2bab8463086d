"""The contract of every command that reads a folder of cells: what was edited, cut or copied in is told in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.train.glue.conftest import CheckpointFactory, checkpoint, glue  # noqa: F401 - fixtures
from tests.train.squad.conftest import squad  # noqa: F401 - fixture

GONE = object()
NESTED = "[" * 100_000
SETTINGS = ["--seeds", "2", "--workers", "1", "--device", "cpu", "--quiet", "--set", "epochs=1"]
SQUAD = ["--set", "max_length=32", "--set", "max_question_length=6", "--set", "doc_stride=8"]


@pytest.fixture(scope="module")
def commands(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[str]]:
    """Every command on the folder FOLDER."""
    models = [str(checkpoint("original")), str(checkpoint("shared"))]
    report = str(tmp_path_factory.mktemp("report") / "report")
    return {
        "glue": ["glue", *models, "--data-dir", str(glue), "--tasks", "cola,rte", "--out", "FOLDER", *SETTINGS],
        "compare": ["glue-compare", "FOLDER:original", "FOLDER:shared", "--resamples", "10"],
        "report": ["report", "--glue", "FOLDER", "--out", report],
    }


def put_in(words: list[str], folder: Path) -> list[str]:
    return [word.replace("FOLDER", str(folder)) for word in words]


@pytest.fixture(scope="module")
def folder(commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "out"
    assert run(put_in(commands["glue"], out)) == 0
    return out


def edit(path: Path, key: str, value: Any) -> None:
    """Set `a.b` of a JSON file; `*` is every key, "" the whole file."""
    document = json.loads(path.read_text("utf-8"))

    def change(found: Any, keys: list[str]) -> None:
        for name in list(found) if keys[0] == "*" else [keys[0]]:
            if len(keys) > 1:
                change(found[name], keys[1:])
            elif value is GONE:
                del found[name]
            else:
                found[name] = value

    if key:
        change(document, key.split("."))
    else:
        document = value
    path.write_text(json.dumps(document), "utf-8")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the refusal, and the hint."""
    capsys.readouterr()
    assert run(words) == 1, words
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert len([line for line in output.err.splitlines() if line and not line.startswith("hint: ")]) == 1
    return output.err


CELL = [
    ("", [], "[], expected an object"),
    ("identity", {}, "`identity.weights` is missing"),
    ("identity.weights", GONE, "`identity.weights` is missing"),
    ("identity.task", GONE, "`identity.task` is missing"),
    ("identity.task", [], "`identity.task` is [], expected a valid string"),
    ("identity.task", "chess", "does not belong here: grid.json lists no task `chess`"),
    ("identity.task", "rte", "does not belong here: "),
    ("identity.seed", GONE, "`identity.seed` is missing"),
    ("identity.seed", "x", "`identity.seed` is 'x', expected a valid integer"),
    ("identity.seed", -1, "`identity.seed` is -1, expected greater than or equal to 0"),
    ("identity.seed", 7, "does not belong here: its identity is that of "),
    ("identity.data", "0" * 64, "does not belong here: it is of other data than grid.json has as cola"),
    ("scores", {}, "it has no score `matthews_correlation`, which cola has"),
    (
        "scores",
        {"matthews_correlation": float("nan")},
        "`scores.matthews_correlation` is nan, expected a finite number",
    ),
    ("predictions", GONE, "`predictions` is missing"),
    ("predictions.validation", [1, 0], "`predictions.validation` is [1, 0], expected a valid string"),
    ("noise", {}, "`noise.scores` is missing"),
    ("noise", None, "`noise` is None, expected an object"),
    ("noise", {"scores": {}, "predictions": {}}, "it has no score `matthews_correlation`, which cola has"),
    ("timing", 5, "`timing` is 5, expected an object"),
    ("timing.seeds_together", ["1"], "`timing.seeds_together.0` is '1', expected a valid integer"),
]
GRID = [
    ("protocol", [], "`protocol` is [], expected an object"),
    ("protocol.noise", "typos", "expected noise and noise_rate together"),
    ("tasks.cola", 5, "`tasks.cola` is 5, expected an object"),
    ("tasks.cola", {}, "`tasks.cola.data` is missing"),
    ("tasks.cola.rows", [1], "`tasks.cola.rows` is [1], expected an object"),
    ("checkpoints.*", 5, ", expected an object"),
    ("checkpoints.*.name", GONE, ".name` is missing"),
    ("checkpoints.*.run", GONE, ".run` is missing"),
    ("checkpoints.*.step", "last", ".step` is 'last', expected a valid integer"),
]
LABELS = [
    ("labels", GONE, "`labels` is missing"),
    ("labels.validation", "", "labels"),
    ("labels.validation", "0101", "labels"),
    ("labels.validation", "7" * 18, "label"),
    ("labels.validation", "\ud800", "label"),
    ("labels", {}, "label"),
]
DAMAGE = [
    *(("cells/*/cola-1.json", *damage) for damage in CELL),
    *(("grid.json", *damage) for damage in GRID),
    *(("labels/cola.json", *damage) for damage in LABELS),
]


@pytest.mark.parametrize(("name", "key", "value", "reason"), DAMAGE)
def test_an_edited_record_is_refused_by_every_command_with_its_name(
    name: str,
    key: str,
    value: Any,
    reason: str,
    folder: Path,
    commands: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = min(copy.glob(name))
    edit(path, key, value)
    for words in commands.values():
        error = refused(put_in(words, copy), capsys)
        assert error.startswith(f"error: {path} ")
        assert reason in error
        assert "\nhint: " in error


@pytest.mark.parametrize("name", ["cells/*/cola-1.json", "grid.json", "labels/cola.json"])
def test_json_too_deep_to_read_is_refused_by_every_command(
    name: str, folder: Path, commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = min(copy.glob(name))
    path.write_text(NESTED)
    for words in commands.values():
        assert refused(put_in(words, copy), capsys).startswith(f"error: {path} is damaged: maximum recursion depth")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "`identity` is missing"),
        ({"identity": {}, "error": "x"}, "`identity.weights` is missing"),
        ({"identity": {"weights": "0" * 64}}, "`error` is missing"),
    ],
)
@pytest.mark.parametrize("of_a_finished_cell", [True, False])
def test_a_damaged_record_of_a_failure_is_refused_with_its_name(
    record: Any,
    reason: str,
    of_a_finished_cell: bool,
    folder: Path,
    commands: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    cell = min(copy.glob("cells/*/cola-1.json"))
    path = copy / "failed" / cell.relative_to(copy / "cells")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    if not of_a_finished_cell:
        cell.unlink()
    error = refused(put_in(commands["glue"], copy), capsys)
    assert error.startswith(f"error: {path} is damaged: {reason}")
    assert "hint: delete it; the command that made the folder makes it again" in error


def test_cells_of_a_checkpoint_that_was_never_given_are_found_once_it_is(
    commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    _, original, shared, *rest = commands["glue"]
    assert run(put_in(["glue", original, *rest], one)) == 0
    assert run(put_in(["glue", shared, *rest], other)) == 0
    shutil.copytree(other / "cells", one / "cells", dirs_exist_ok=True)
    for words in (["glue", original, *rest], commands["compare"], commands["report"]):
        error = refused(put_in(words, one), capsys)
        assert "does not belong here: grid.json lists no checkpoint with its weights, " in error
        assert "hint: take it away, or run its command on this folder with that checkpoint too" in error
    assert run([*put_in(commands["glue"], one), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["trained"], document["found"]) == (0, 8)


def test_a_second_folder_without_labels_is_refused_before_its_predictions_are_drawn(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "labels" / "cola.json").unlink()
    for path in copy.glob("cells/*/cola-*.json"):
        edit(path, "predictions", {"validation": "01"})
    error = refused(["glue-compare", f"{folder}:original", f"{copy}:shared"], capsys)
    assert error.startswith(f"error: {copy / 'labels' / 'cola.json'} is missing, expected the labels of cola")


def test_a_folder_of_a_search_is_no_glue_folder_but_those_in_it_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = shutil.copytree(folder, tmp_path / "search" / "learning-rate-1e-05")
    error = refused(["glue-compare", f"{tmp_path / 'search'}:original", f"{rate}:original"], capsys)
    assert error.startswith(f"error: {tmp_path / 'search'} is not a GLUE folder: grid.json is missing")
    assert f"hint: it holds a search over learning rates: give one of its folders, such as {rate}" in error


@pytest.fixture(scope="module")
def answered(
    squad: dict[str, tuple[Path, Path]],  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[str]]:
    """A folder of symbert squad, and the command that made it."""
    train, dev = map(str, squad["2.0"])
    out = tmp_path_factory.mktemp("answered") / "out"
    words = ["squad", str(checkpoint("original")), "--train", train, "--dev", dev, "--out", "FOLDER", *SETTINGS, *SQUAD]
    assert run(put_in(words, out)) == 0
    return out, words


def test_a_squad_folder_is_not_taken_for_one_of_glue(
    answered: tuple[Path, list[str]], folder: Path, commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = answered
    for words in (["glue-compare", str(out), f"{folder}:original"], commands["report"]):
        error = refused(put_in(words, out), capsys)
        assert error.startswith(f"error: {out} is a folder of scores on `squad`, expected tasks of GLUE")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("scores.f1", "x", "`scores.f1` is 'x', expected a valid number"),
        ("scores.f1", GONE, "its f1 is None, its predictions score"),
        ("scores.accuracy", 0.5, "it has a score `accuracy`, which its answers do not give"),
        ("predictions", {}, "it has no answer to the question 'q12'"),
        ("predictions", [], "`predictions` is [], expected an object"),
        ("identity.weights", "0" * 64, "does not belong here: grid.json lists no checkpoint with its weights"),
    ],
)
def test_an_edited_cell_of_squad_is_refused(
    key: str,
    value: Any,
    reason: str,
    answered: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, words = answered
    copy = shutil.copytree(out, tmp_path / "copy")
    path = min(copy.glob("cells/*/squad-1.json"))
    edit(path, key, value)
    error = refused(put_in(words, copy), capsys)
    assert error.startswith(f"error: {path} ")
    assert reason in error
    path.write_text(NESTED)
    assert refused(put_in(words, copy), capsys).startswith(f"error: {path} is damaged: maximum recursion depth")
