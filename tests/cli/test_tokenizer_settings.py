"""The tokenizer that AutoTokenizer opens beside a corpus, a checkpoint and an export is the one that packed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cli.main import run
from tests.cli.test_export import checkpoint
from tests.corpora import write_corpus
from tests.train.glue.conftest import glue  # noqa: F401 - a fixture
from tests.train.tiny import tiny_recipe
from train.pretrain import pretrain
from train.run import Stop

ROOT = Path(__file__).parents[2]
TEXT = "The Café of PARIS, 日本 W2"
DOCUMENTS = ["The quick Fox of PARIS jumps over the Café.", "the fox of Paris is a lazy Dog, 日本."]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    lines = [json.dumps({"content": f"{text} {number}"}) for number in range(40) for text in DOCUMENTS]
    (tmp_path / "part.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path / "part.jsonl"


@pytest.fixture
def cased(shard: Path) -> Path:
    """What `symbert tokenizer train --cased` writes."""
    out = shard.parent / "cased"
    assert run(["tokenizer", "train", str(shard), "--out", str(out), "--vocabulary-size", "150", "--cased", "-q"]) == 0
    return out


def prepare(shard: Path, tokenizer: Path, out: Path) -> int:
    options = [
        "--sequence-length",
        "16",
        "--validation-samples",
        "0",
        "--missing-harmful-pp",
        "keep",
        "--url-field",
        "u",
    ]
    return run(["prepare", str(shard), "--out", str(out), "--tokenizer", str(tokenizer), *options, "--workers", "1"])


def set_config(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def change(folder: Path, part: str, **values: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content[part] |= values
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")


def own_ids(folder: Path) -> list[int]:
    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids)


def ids(folder: Path) -> list[int]:
    return list(AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "ElectraTokenizerFast"])
def test_a_corpus_keeps_settings_by_which_its_tokenizer_opens_as_it_packed(
    shard: Path, cased: Path, capsys: pytest.CaptureFixture[str], tokenizer_class: str
) -> None:
    set_config(cased, tokenizer_class=tokenizer_class)
    assert ids(cased) != own_ids(cased)
    out = shard.parent / "corpus"
    assert prepare(shard, cased, out) == 0
    assert f"{out}/tokenizer is saved with do_lower_case false, as its tokenizer.json has it" in capsys.readouterr().err
    assert ids(out / "tokenizer") == own_ids(out / "tokenizer") == own_ids(cased)
    assert prepare(shard, cased, out) == 0
    assert "do_lower_case" not in capsys.readouterr().err
    assert run(["verify", str(out)]) == 0


def test_settings_that_agree_are_saved_as_they_came(shard: Path, cased: Path) -> None:
    given = json.loads((cased / "tokenizer_config.json").read_text("utf-8"))
    assert prepare(shard, cased, shard.parent / "corpus") == 0
    saved = (shard.parent / "corpus/tokenizer/tokenizer_config.json").read_text("utf-8")
    assert saved == json.dumps(given, indent=2, ensure_ascii=False) + "\n"


def test_a_tokenizer_that_no_setting_brings_to_agree_is_refused_and_nothing_is_written(
    shard: Path, cased: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(cased, "normalizer", clean_text=False)
    assert prepare(shard, cased, shard.parent / "corpus") == 1
    error = capsys.readouterr().err
    assert f'error: {cased}: AutoTokenizer is not tokenizer.json, by tokenizer_class "BertTokenizer" of' in error
    assert f'hint: write "tokenizer_class": "PreTrainedTokenizerFast" into {cased}/tokenizer_config.json' in error
    assert not (shard.parent / "corpus").exists()
    set_config(cased, tokenizer_class="PreTrainedTokenizerFast")
    assert prepare(shard, cased, shard.parent / "corpus") == 0


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None])
def test_transformers_is_not_imported_for_the_usual_classes(cased: Path, tokenizer_class: str | None) -> None:
    set_config(cased, **({"tokenizer_class": tokenizer_class} if tokenizer_class else {}))
    code = f"""if True:
        import sys
        from cli.corpus_tokenizer import find_tokenizer
        assert find_tokenizer({str(cased)!r}).config["tokenizer_class"]
        assert "transformers" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def contradicting(folder: Path) -> Path:
    """A checkpoint of a cased tokenizer.json, whose settings speak of small letters."""
    checkpoint(folder, "original")
    change(folder, "normalizer", lowercase=False)
    return folder


def test_glue_and_analyze_refuse_a_checkpoint_whose_settings_contradict_its_tokenizer_json(
    tmp_path: Path,
    glue: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = contradicting(tmp_path / "model")
    (tmp_path / "text").write_text("the capital of france", "utf-8")
    for command in (
        [
            "glue",
            str(folder),
            "--data-dir",
            str(glue),
            "--out",
            str(tmp_path / "out"),
            "--tasks",
            "cola",
            "--workers",
            "1",
        ],
        ["analyze", str(folder), "--text", str(tmp_path / "text")],
    ):
        assert run(command) == 1
        error = capsys.readouterr().err
        assert f"error: {folder}: AutoTokenizer is not tokenizer.json, by tokenizer_class" in error
        assert "do_lower_case true" in error
        assert "hint: write" in error
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize("form", ["bert", "hub"])
def test_an_export_holds_settings_that_agree(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = contradicting(tmp_path / "model")
    out = tmp_path / "out"
    assert run(["export", str(folder), "--out", str(out), "--format", form]) == 0
    assert "tokenizer_config.json says do_lower_case false" in capsys.readouterr().err
    assert ids(out) == own_ids(folder)


def test_a_bert_export_without_settings_is_not_taken_for_berts_own(tmp_path: Path) -> None:
    folder = contradicting(tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()
    assert ids(folder) == own_ids(folder)
    assert run(["export", str(folder), "--out", str(tmp_path / "out"), "--format", "bert"]) == 0
    assert ids(tmp_path / "out") == own_ids(folder)


def test_an_export_that_cannot_agree_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = contradicting(tmp_path / "model")
    change(folder, "normalizer", clean_text=False)
    assert run(["export", str(folder), "--out", str(tmp_path / "out"), "--format", "bert"]) == 1
    assert f"error: {folder}: AutoTokenizer is not tokenizer.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def old_corpus(folder: Path, **normalizer: Any) -> Path:
    """A corpus whose manifest names tokenizer.json alone, with settings that contradict it."""
    import hashlib

    write_corpus(folder)
    change(folder / "tokenizer", "normalizer", lowercase=False, **normalizer)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    content = (folder / "tokenizer/tokenizer.json").read_bytes()
    manifest["tokenizer"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def test_checkpoints_from_a_corpus_of_an_older_symbert_open_as_it_packed(tmp_path: Path) -> None:
    corpus = old_corpus(tmp_path / "corpus")
    assert ids(corpus / "tokenizer") != own_ids(corpus / "tokenizer")
    before = (corpus / "tokenizer/tokenizer_config.json").read_bytes()
    pretrain(corpus, tmp_path / "run", tiny_recipe(), device="cpu", stop=Stop(after_step=1), notice=lambda _: None)
    (saved,) = (tmp_path / "run/checkpoints").glob("step-*")
    assert ids(saved) == own_ids(saved) == own_ids(corpus / "tokenizer")
    assert (corpus / "tokenizer/tokenizer_config.json").read_bytes() == before


def test_a_corpus_whose_tokenizer_cannot_agree_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = old_corpus(tmp_path / "corpus", clean_text=False)
    assert run(["pretrain", "--data", str(corpus), "--out", str(tmp_path / "run"), "--size", "small",
                "--set", "model.vocab_size=101", "--set", "data.sequence_length=32"]) == 1  # fmt: skip
    assert f"error: {corpus}/tokenizer: AutoTokenizer is not tokenizer.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
