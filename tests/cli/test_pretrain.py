import json
from pathlib import Path

import pytest

from cli.main import run
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def command(corpus: Path, out: Path, *more: str, **changes: object) -> list[str]:
    settings = [word for text in tiny_assignments(**changes) for word in ("--set", text)]
    return ["pretrain", "--data", str(corpus), "--out", str(out), "--device", "cpu", "--quiet", *settings, *more]


def test_a_run_stops_goes_on_and_finishes(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(corpus, tmp_path, "--operator", "shared", "--stop-after-step", "7")) == 75
    assert "step 7 of 20, saved, not finished: run the same command again" in capsys.readouterr().out
    assert run(command(corpus, tmp_path, "--operator", "shared", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["step"], document["finished"]) == (20, True)
    assert document["last_evaluation_loss"] < document["first_evaluation_loss"]


@pytest.mark.parametrize(
    ("more", "changes", "said"),
    [
        (["--operator", "original,pairwise,shared"], {}, ["error: `attention_operator` names 3 layers; expected 2"]),
        (
            ["--set", "schedule.max_step=10"],
            {},
            ["error: `schedule.max_step` is not", "hint: did you mean `schedule.max_steps`?"],
        ),
        (
            ["--recipe", "pico"],
            {},
            ["error: pico is neither a recipe file", "hint: the shipped recipes are "],
        ),
        (["--device", "cuda:77"], {}, ["error: --device cuda:77 is not there", "hint: --device cpu"]),
        ([], {"model.vocab_size": 30522}, ["a tokenizer of 101 entries", "hint: --set model.vocab_size=101"]),
        (
            ["--max-steps", "3"],
            {"schedule.max_steps": 3},
            ["error: [schedule]: max_steps 3 is below warmup_steps 4", "hint: --set schedule.warmup_steps=0"],
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_writes_nothing(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    changes: dict[str, object],
    said: list[str],
) -> None:
    assert run(command(corpus, tmp_path / "run", *more, **changes)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(words in captured.err for words in said), captured.err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_the_costs_and_writes_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(corpus, tmp_path / "run", "--dry-run", "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["steps"], facts["tokens"], facts["training_samples"]) == (20, 20 * 8 * 32, 96)
    assert run(command(corpus, tmp_path / "run", "--dry-run")) == 0
    assert f"parameters      {facts['parameters']:,}\n" in capsys.readouterr().out
    assert run(command(corpus, tmp_path / "run", "--dry-run", **{"data.sequence_length": 16})) == 1
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_run_would_and_says_what_is_left_of_one(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(command(corpus, out, "--dry-run", "--init-from", str(corpus))) == 1
    assert "holds no model.safetensors" in capsys.readouterr().err
    assert run(command(corpus, out, "--stop-after-step", "5")) == 75
    capsys.readouterr()
    assert run(command(corpus, out, "--dry-run")) == 0
    assert "20, of which 5 are done" in capsys.readouterr().out
    assert run(command(corpus, out, "--dry-run", **{"optimizer.learning_rate": 0.5})) == 1
    assert "holds a run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--data", "--out"])
def test_a_command_without_a_folder_is_a_usage_error(tmp_path: Path, missing: str) -> None:
    words = command(tmp_path, tmp_path)
    place = words.index(missing)
    assert run(words[:place] + words[place + 2 :]) == 2
