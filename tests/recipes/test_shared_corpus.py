"""Every shipped recipe at its own width, on real text: trains, resumes bit for bit, and opens without symbert.

Depth 2, batches of 4, 20 steps. Two things are smaller than the recipe says, so that all of it takes minutes on one
core: rows of 128 tokens, and an evaluation of 8 samples. What is left out of an ordinary run of the slow tests is run
with SYMBERT_EVERY_RECIPE=1.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import run
from durable.files import file_sha256
from tests.recipes.test_training import STRANGER, operator
from train.checkpoint import checkpoint_folder
from train.recipe import load_recipe, recipe_names

pytestmark = [pytest.mark.slow, pytest.mark.shared]

FEW = ("bert-small-shared", "debug", "demo", "hbert-v2")
CHOSEN = recipe_names() if "SYMBERT_EVERY_RECIPE" in os.environ else list(FEW)
SETTINGS = (
    "model.num_hidden_layers=2", "training.batch_size=4", "schedule.max_steps=20", "schedule.warmup_steps=2",
    "evaluation.every=20", "evaluation.samples=8", "evaluation.attention_samples=1", "checkpoint.every=20",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpora(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Corpora of the last shard by size of vocabulary: BERT's own in rows of 128, and the demo's in rows of 32."""
    folder = tmp_path_factory.mktemp("corpora")
    shard = str(shared / "oscar2301" / "en_meta" / "en_meta_part_6.jsonl.zst")
    small = str(folder / "tokenizer")
    assert run(["tokenizer", "train", shard, "--out", small, "--vocabulary-size", "2048", "--quiet"]) == 0
    made = {}
    for size, tokenizer, length in ((30_522, str(shared / "bert-base-uncased"), 128), (2_048, small, 32)):
        made[size] = folder / str(size)
        options = ["--tokenizer", tokenizer, "--sequence-length", str(length), "--validation-samples", "8"]
        assert run(["prepare", shard, "--out", str(made[size]), *options, "--no-report", "--quiet"]) == 0
    return made


def command(name: str, corpora: dict[int, Path], out: Path, *more: str) -> list[str]:
    model = load_recipe(name).model
    length = {30_522: 128, 2_048: 32}[model.vocab_size]
    operators = f'model.attention_operator="{operator(name)}"'
    settings = [*SETTINGS, operators, f"data.sequence_length={length}"]
    words = [word for setting in settings for word in ("--set", setting)]
    where = ["--data", str(corpora[model.vocab_size]), "--out", str(out), "--device", "cpu", "--quiet"]
    return ["pretrain", "--recipe", name, *where, *words, *more]


@pytest.mark.parametrize("name", CHOSEN)
def test_a_recipe_at_its_own_width_trains_on_real_text_resumes_bit_for_bit_and_opens_without_symbert(
    name: str, corpora: dict[int, Path], tmp_path: Path
) -> None:
    assert run(command(name, corpora, tmp_path / "whole")) == 0
    assert run(command(name, corpora, tmp_path / "parts", "--stop-after-step", "7")) == 75
    assert run(command(name, corpora, tmp_path / "parts")) == 0
    whole, parts = (checkpoint_folder(tmp_path / run_name, 20) for run_name in ("whole", "parts"))
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert file_sha256(parts / file) == file_sha256(whole / file)
    open_without_symbert(whole, tmp_path)
    shutil.rmtree(tmp_path)  # a gigabyte at the width of BERT-base


def open_without_symbert(checkpoint: Path, folder: Path) -> None:
    """Open it in a process that cannot see symbert."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-I", "-c", STRANGER, str(checkpoint)]
    shown = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.split()) == 1
