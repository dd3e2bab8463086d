import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from cli.main import run
from symbert.checkpoint import load_checkpoint
from symbert.export import fold
from tests.corpora import write_corpus
from tests.train.tiny import tiny_recipe
from train.checkpoint import checkpoint_folder
from train.metrics import read_metrics
from train.pretrain import pretrain


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pairwise"
    pretrain(corpus, out, tiny_recipe("pairwise", checkpoint__every=10), device="cpu")
    return out


def evaluated(capsys: pytest.CaptureFixture[str], corpus: Path, *folders: Path) -> list[dict[str, Any]]:
    words = ["evaluate", *map(str, folders), "--data", str(corpus), "--precision", "fp32", "--device", "cpu", "--json"]
    assert run(words) == 0
    return json.loads(capsys.readouterr().out)["checkpoints"]


def test_checkpoints_have_the_losses_that_their_run_recorded(
    corpus: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row["step"]: row for row in read_metrics(trained) if row["kind"] == "evaluation"}
    found = evaluated(capsys, corpus, checkpoint_folder(trained, 10), trained)
    for result, step in zip(found, (10, 20), strict=True):
        for name in ("evaluation_loss", "evaluation_standard_error", "evaluation_accuracy"):
            assert result[name] == pytest.approx(rows[step][name], rel=1e-6)


def test_a_stock_bert_that_was_folded_from_a_checkpoint_has_its_loss(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold(load_checkpoint(checkpoint_folder(trained, 20))).save_pretrained(tmp_path / "bert")
    ours, bert = evaluated(capsys, corpus, trained, tmp_path / "bert")
    assert bert["evaluation_loss"] == pytest.approx(ours["evaluation_loss"], rel=1e-5)


def test_a_loss_that_is_no_number_is_an_error(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(checkpoint_folder(trained, 20), tmp_path / "model")
    (folder / "state.json").unlink()
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight * 1e30 for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert run(["evaluate", str(folder), "--data", str(corpus), "--device", "cpu", "--json"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {folder}: its loss in fp32 is nan")


def test_the_checkpoint_that_stood_for_a_run_is_named(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (checkpoint_folder(folder, 20) / "model.safetensors").write_bytes(b"")
    (result,) = evaluated(capsys, corpus, folder)
    assert (result["checkpoint"], result["step"]) == (str(folder), 10)
    assert result["folder"] == str(checkpoint_folder(folder, 10))
    assert run(["evaluate", str(folder), "--data", str(corpus), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{checkpoint_folder(folder, 10)}: loss ")


def test_a_checkpoint_without_a_tokenizer_is_evaluated_and_said_to_have_none(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(checkpoint_folder(trained, 20), tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    assert run(["evaluate", str(folder), "--data", str(corpus), "--device", "cpu"]) == 0
    assert "holds no tokenizer.json: taken to be of the corpus's tokenizer" in capsys.readouterr().err


def test_the_table_shows_loss_error_and_the_line_of_the_plateau(
    corpus: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(trained), "--data", str(corpus), "--samples", "5", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert " ± " in shown
    assert "on 5 samples" in shown
    assert "unigram entropy " in shown


def test_what_does_not_fit_is_refused(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {
        tmp_path / "nowhere": "nowhere does not exist, expected a checkpoint or run folder",
        corpus: "holds no config.json",
        _other_vocabulary(tmp_path / "large"): "made with another tokenizer",
        _other_words(trained, tmp_path / "renumbered"): "made with another tokenizer",
    }
    for folder, message in refused.items():
        assert run(["evaluate", str(folder), "--data", str(corpus), "--device", "cpu"]) == 1
        assert message in capsys.readouterr().err
    longer = write_corpus(tmp_path / "longer", length=64)
    assert run(["evaluate", str(trained), "--data", str(longer), "--device", "cpu"]) == 1
    assert "holds samples of 64 tokens" in capsys.readouterr().err
    without = write_corpus(tmp_path / "without", validation=0)
    assert run(["evaluate", str(trained), "--data", str(without), "--device", "cpu"]) == 1
    assert "has no validation samples" in capsys.readouterr().err


def _other_vocabulary(folder: Path) -> Path:
    config = BertConfig(vocab_size=77, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def _other_words(run_folder: Path, folder: Path) -> Path:
    shutil.copytree(checkpoint_folder(run_folder, 20), folder)
    (folder / "state.json").unlink()
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("w17", "q17"))
    return folder
