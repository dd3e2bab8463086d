"""Models that other programs wrote from ours open in every command, and where symbert is not installed."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, Trainer, TrainingArguments

from cli.main import run
from symbert import (
    SymbertConfig,
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
)
from tests.corpora import write_corpus
from tests.symbert.test_checkpoint import STRANGER
from tests.symbert.test_trainer import examples
from tests.train.glue.conftest import glue  # noqa: F401 - a fixture
from train.glue.checkpoint import find_subject
from train.glue.loading import load_classifier

HEADS = {
    "AutoModelForMaskedLM": SymbertForMaskedLM,
    "AutoModelForSequenceClassification": SymbertForSequenceClassification,
    "AutoModelForTokenClassification": SymbertForTokenClassification,
    "AutoModelForQuestionAnswering": SymbertForQuestionAnswering,
}
# Of transformers 4 and 5 and of programs around them; none is a field of ours.
FOREIGN = {
    "use_cache": False, "finetuning_task": "mnli", "quantization_config": None, "sep_token_id": 3, "bos_token_id": None,
    "eos_token_id": 3, "decoder_start_token_id": None, "tokenizer_class": "BertTokenizer", "prefix": None,
    "task_specific_params": None, "tie_encoder_decoder": False, "torchscript": False, "pruned_heads": {},
    "use_bfloat16": False, "tf_legacy_loss": False, "xla_device": None, "max_length": 20, "temperature": 1.0,
    "position_embedding_type": "absolute", "gradient_checkpointing": False, "adapters": {"adapters": {}},
    "unsloth_version": "2026.1", "rope_theta": 10000.0, "cross_attention_hidden_size": None, "is_decoder": False,
    "add_cross_attention": False, "chunk_size_feed_forward": 0, "output_scores": False, "return_dict": True,
    "bad_words_ids": None, "num_beams": 1, "_attn_implementation_autoset": True, "num_choices": 2,
}  # fmt: skip


def fresh(head: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 101, "hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2}
    return head(SymbertConfig(**sizes, intermediate_size=34, attention_operator="pairwise", num_labels=3))


def by_the_trainer(head: Any, folder: Path) -> None:
    options: dict[str, Any] = {"max_steps": 1, "use_cpu": True, "report_to": [], "disable_tqdm": True}
    arguments = TrainingArguments(str(folder), save_strategy="no", dataloader_pin_memory=False, **options)
    trainer = Trainer(fresh(head), arguments, train_dataset=examples(head))  # type: ignore[arg-type]
    trainer.train()
    trainer.save_model()


def in_bfloat16(head: Any, folder: Path) -> None:
    fresh(head).to(torch.bfloat16).save_pretrained(folder)


def by_peft(head: Any, folder: Path) -> None:
    adapters = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers for a property of old
        peft.get_peft_model(fresh(head), adapters).merge_and_unload().save_pretrained(folder)


def with_foreign_keys(head: Any, folder: Path) -> None:
    fresh(head).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(FOREIGN | json.loads(path.read_text("utf-8"))), "utf-8")


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "trainer": by_the_trainer, "bfloat16": in_bfloat16, "peft": by_peft, "keys": with_foreign_keys,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def models(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `WRITER-HEAD`s, each with the corpus's tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for writer, write in WRITERS.items():
        for name, head in HEADS.items():
            write(head, folder / f"{writer}-{name}")
            shutil.copytree(corpus / "tokenizer", folder / f"{writer}-{name}", dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("head", HEADS)
def test_what_another_program_saved_opens_for_glue_export_and_evaluation(
    models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], writer: str, head: str
) -> None:
    folder = models / f"{writer}-{head}"
    weights = load_file(folder / "model.safetensors")
    name = "symbert.encoder.layer.0.attention.self.pairwise"
    classifier = load_classifier(find_subject(folder, print), num_labels=2, seed=0)
    assert torch.equal(classifier.state_dict()[name], weights[name].float())
    assert run(["export", str(folder), "--out", str(tmp_path / "bert")]) == 0
    assert run(["export", str(folder), "--out", str(tmp_path / "hub"), "--format", "hub"]) == 0
    capsys.readouterr()
    status = run(["evaluate", str(folder), "--data", str(corpus), "--device", "cpu"])
    output = capsys.readouterr()
    if head == "AutoModelForMaskedLM":
        assert status == 0, output.err
        assert "accuracy" in output.out
    else:
        assert status == 1
        assert "expected a masked language model" in output.err


@pytest.mark.parametrize(
    "asked",
    [{"output_attentions": True}, {"output_hidden_states": True}, {"return_dict": False}, {"layer_norm_eps": 1}],
)
@pytest.mark.parametrize("form", ["bert", pytest.param("onnx", marks=pytest.mark.slow)])
def test_what_a_configuration_asks_to_be_returned_is_left_out_here(
    corpus: Path,
    models: Path,
    glue: Path,  # noqa: F811
    tmp_path: Path,
    asked: dict[str, Any],
    form: str,
) -> None:
    folder = shutil.copytree(models / "keys-AutoModelForMaskedLM", tmp_path / "model")
    fields = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(fields | asked), "utf-8")
    assert run(["export", str(folder), "--out", str(tmp_path / form), "--format", form]) == 0
    if form == "bert":
        assert run(["evaluate", str(folder), "--data", str(corpus), "--device", "cpu"]) == 0
        options = [
            "--tasks",
            "cola",
            "--seeds",
            "1",
            "--set",
            "epochs=1",
            "--device",
            "cpu",
            "--workers",
            "1",
            "--quiet",
        ]
        assert run(["glue", str(folder), "--data-dir", str(glue), "--out", str(tmp_path / "out"), *options]) == 0


def test_folders_beside_a_model_say_where_one_is(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", "utf-8")
    shutil.copytree(models / "trainer-AutoModelForMaskedLM", tmp_path / "trainer" / "checkpoint-500")
    for name, hint in (("adapter", "merge_and_unload()"), ("trainer", f"such as {tmp_path}/trainer/checkpoint-500")):
        for command in (["export"], ["glue", "--data-dir", str(tmp_path)]):
            assert run([*command, str(tmp_path / name), "--out", str(tmp_path / "new")]) == 1
            assert hint in capsys.readouterr().err


@pytest.mark.parametrize("writer", WRITERS)
def test_what_another_program_saved_is_saved_again_with_its_keys(models: Path, tmp_path: Path, writer: str) -> None:
    folder = models / f"{writer}-AutoModelForMaskedLM"
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(tmp_path)
    before, after = (json.loads((one / "config.json").read_text("utf-8")) for one in (folder, tmp_path))
    # transformers itself drops what concerns the generation of text and what equals its own default.
    for key in ("finetuning_task", "sep_token_id", "adapters", "unsloth_version", "rope_theta"):
        assert after.get(key) == before.get(key)


@pytest.mark.slow
def test_what_another_program_saved_opens_where_symbert_is_not_installed(models: Path, tmp_path: Path) -> None:
    ids = torch.randint(1, 53, (2, 5))
    (models / "ids.json").write_text(json.dumps(ids.tolist()))
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", STRANGER, str(models)]
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    for folder in models.glob("*-*"):
        head = HEADS[folder.name.partition("-")[2]]
        expected = head.from_pretrained(folder).eval()(ids)[0].detach()
        torch.testing.assert_close(load_file(folder / "output.safetensors")["output"], expected, msg=folder.name)


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_glue_scores_what_another_program_saved(
    models: Path,
    glue: Path,  # noqa: F811
    tmp_path: Path,
    writer: str,
) -> None:
    folders = [str(models / f"{writer}-{head}") for head in HEADS]
    options = ["--tasks", "cola", "--seeds", "1", "--set", "epochs=1", "--device", "cpu", "--workers", "1", "--quiet"]
    assert run(["glue", *folders, "--data-dir", str(glue), "--out", str(tmp_path / "out"), *options]) == 0
    assert len(list(tmp_path.glob("out/cells/*/*.json"))) == len(HEADS)
