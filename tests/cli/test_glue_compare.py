import json
import shutil
from pathlib import Path

import pytest

from cli.main import run
from tests.train.glue.conftest import CheckpointFactory, checkpoint, glue  # noqa: F401 - fixtures


@pytest.fixture
def folder(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Path:
    models = [str(checkpoint("original")), str(checkpoint("shared"))]
    arguments = ["--data-dir", str(glue), "--tasks", "cola,rte", "--seeds", "2", "--workers", "1", "--quiet"]
    settings = ["--set", "epochs=2", "--set", "learning_rate=1e-3"]
    assert run(["glue", *models, "--out", str(tmp_path / "out"), *arguments, *settings]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def test_glue_compare_prints_a_line_for_every_number_and_the_average(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["glue-compare", f"{folder}:original", f"{folder}:shared", "--resamples", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("|  | original | shared | difference | 95 % over examples | paired t | Holm |")
    names = [line.split("|")[1].strip() for line in lines[2:] if line.startswith("|")]
    assert [name for name in names if "without" not in name] == ["cola", "rte", "glue"]
    assert lines[-1] == (
        "glue: the average holds 2 of nine numbers; missing in one model or both: "
        "mrpc, mnli-m, mnli-mm, qqp, stsb, qnli, sst2"
    )
    options = ["--resamples", "0", "--average", "leaderboard", "--json"]
    assert run(["glue-compare", f"{folder}:original", f"{folder}:shared", *options]) == 0
    average = json.loads(capsys.readouterr().out)["numbers"]["glue"]
    assert (average["average"], average["missing"][-1]) == ("leaderboard", "wnli")


def test_glue_compare_as_json_holds_every_seed_and_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["glue-compare", f"{folder}:original", f"{folder}:shared", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["first"], document["second"]) == ("original", "shared")
    rte = document["numbers"]["rte"]
    assert rte["seeds"] == [1, 2]
    assert rte["difference"] == pytest.approx(sum(rte["second"]) / 2 - sum(rte["first"]) / 2)


def with_noise(folder: Path) -> None:
    """Say that what the cells found on clean sentences was also found on noisy ones."""
    grid = json.loads((folder / "grid.json").read_text())
    edit(folder / "grid.json", protocol={**grid["protocol"], "noise": "swap", "noise_rate": 0.2})
    for path in folder.glob("cells/*/*.json"):
        record = json.loads(path.read_text())
        edit(path, noise={key: record[key] for key in ("scores", "predictions")})


def test_scores_on_noisy_sentences_are_a_table_of_their_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = shutil.copytree(folder, tmp_path / "noisy")
    with_noise(noisy)
    words = ["glue-compare", f"{noisy}:original", f"{noisy}:shared", "--resamples", "20"]
    assert run(words) == 0
    clean, title, damaged = capsys.readouterr().out.partition("\nOn sentences with noise, swap 0.2:\n\n")
    assert title
    assert clean == damaged
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["noise"] == {"kind": "swap 0.2", "numbers": document["numbers"]}
    assert run(["glue-compare", f"{noisy}:original", f"{folder}:shared", "--resamples", "0"]) == 0
    told = "On clean sentences alone: the noise is not the same (swap 0.2 of original, none of shared)\n"
    assert capsys.readouterr().out.endswith(told)


def test_glue_compare_refuses_what_is_not_one_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["glue-compare", str(folder), f"{folder}:shared"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {folder} holds 2 models, expected one")
    assert f"hint: write {folder}:MODEL with one of original, shared" in output.err


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def raise_a_score(folder: Path) -> None:
    edit(next(folder.glob("cells/*/rte-1.json")), scores={"accuracy": 0.99})


def change_a_prediction(folder: Path) -> None:
    path = next(folder.glob("cells/*/cola-2.json"))
    ((split, text),) = json.loads(path.read_text())["predictions"].items()
    edit(path, predictions={split: text[1:]})


def empty_a_cell(folder: Path) -> None:
    next(folder.glob("cells/*/rte-2.json")).write_text("[]")


def empty_the_record(folder: Path) -> None:
    (folder / "grid.json").write_text("[]")


DAMAGE = {
    raise_a_score: "rte-1.json is damaged: its accuracy is 0.99, its predictions score 0.",
    change_a_prediction: "cola-2.json is damaged: it has not as many predictions as there are labels",
    empty_a_cell: "rte-2.json is damaged: [], expected an object",
    empty_the_record: "grid.json is damaged: [], expected an object",
}


def test_a_folder_whose_records_were_edited_is_refused_by_every_command(
    folder: Path,
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for damage, message in DAMAGE.items():
        copy = shutil.copytree(folder, tmp_path / damage.__name__)
        damage(copy)
        options = ["--data-dir", str(glue), "--tasks", "cola,rte", "--seeds", "2", "--workers", "1", "--quiet"]
        settings = ["--set", "epochs=2", "--set", "learning_rate=1e-3"]
        for words in (
            ["glue", str(checkpoint("original")), "--out", str(copy), *options, *settings],
            ["glue-compare", f"{copy}:original", f"{folder}:shared"],
            ["report", "--glue", str(copy), "--out", str(tmp_path / "report")],
        ):
            assert run(words) == 1, words
            output = capsys.readouterr()
            assert output.out == ""
            assert output.err.startswith(f"error: {copy}")
            assert message in output.err
