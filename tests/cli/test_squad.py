import json
from pathlib import Path

import pytest

from cli.main import run
from tests.train.glue.conftest import CheckpointFactory, checkpoint  # noqa: F401 - fixture
from tests.train.squad.conftest import squad  # noqa: F401 - fixture

Files = dict[str, tuple[Path, Path]]


def command(model: Path, files: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    settings = ["max_length=32", "max_question_length=6", "doc_stride=8", "epochs=1"]
    return [
        "squad", str(model), "--train", str(files[0]), "--dev", str(files[1]), "--out", str(out), "--seeds", "1,",
        "--workers", "1", "--device", "cpu", *(word for setting in settings for word in ("--set", setting)), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_squad_prints_the_table_and_trains_nothing_the_second_time(
    version: str,
    squad: Files,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = command(checkpoint(), squad[version], tmp_path / "out")
    assert run(arguments) == 0
    output = capsys.readouterr()
    assert "| pairwise |" in output.out
    assert "1 cells trained, 0 found, 0 left" in output.err
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["trained"], document["found"], document["version"]) == (0, 1, version)
    assert ("no_answer_f1" in document["models"][0]["scores"]) is (version == "2.0")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--version", "3"], 2, "error: invalid value for '--version'"),
        (["--train", "/nonexistent.json"], 1, "error: /nonexistent.json does not exist"),
        (["--train", "/"], 1, "error: / is a folder, expected a JSON file of SQuAD"),
        (["--seeds", "two"], 2, "error: invalid value for '--seeds'"),
        (["--set", "stride=1"], 1, "error: `stride` is not a protocol key"),
        (["--set", "max_length=16"], 1, "error: "),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str],
    code: int,
    error: str,
    squad: Files,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = checkpoint()
    capsys.readouterr()  # transformers' own progress while it saves the model
    assert run(command(model, squad["1.1"], tmp_path / "out", *arguments)) == code
    output = capsys.readouterr()
    assert output.err.startswith(error)
    assert output.out == ""
    assert not (tmp_path / "out").exists()
