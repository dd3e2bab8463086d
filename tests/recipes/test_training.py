"""Every shipped recipe trains, resumes bit for bit, and leaves a checkpoint that opens without symbert."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import run
from durable.files import file_sha256
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments
from train.checkpoint import checkpoint_folder
from train.recipe import load_recipe, recipe_names

STRANGER = """
import sys
from pathlib import Path
sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "symbert").exists()]
try:
    import symbert
except ModuleNotFoundError:
    pass
else:
    raise SystemExit(f"symbert can be seen at {symbert.__file__}")
from transformers import AutoModelForMaskedLM
for folder in sys.argv[1:]:
    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    print(",".join(model.config.layer_operators))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def operator(name: str) -> str:
    """The operators of the recipe's layers 1 and 2, where v2 changes its operator; or the one of all layers."""
    operators = load_recipe(name).model.attention_operator.split(",")
    return ",".join(operators[1:3] if len(operators) > 1 else operators)


def trained(name: str, corpus: Path, out: Path, *more: str) -> int:
    """Exit code of `symbert pretrain` with the recipe at depth 2, a small width and batches of 4."""
    assignments = tiny_assignments(training__batch_size=4, model__attention_operator=f'"{operator(name)}"')
    settings = [part for assignment in assignments for part in ("--set", assignment)]
    where = ["--data", str(corpus), "--out", str(out), "--device", "cpu", "--quiet"]
    return run(["pretrain", *where, "--recipe", name, *settings, *more])


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_trains_and_resumes_bit_for_bit(name: str, corpus: Path, runs: Path) -> None:
    whole, parts = runs / name, runs / f"{name}-in-parts"
    assert trained(name, corpus, whole) == 0
    assert trained(name, corpus, parts, "--stop-after-step", "7") == 75
    assert trained(name, corpus, parts) == 0
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert file_sha256(checkpoint_folder(parts, 20) / file) == file_sha256(checkpoint_folder(whole, 20) / file)


def test_the_checkpoint_of_every_recipe_opens_where_symbert_is_not_installed(corpus: Path, runs: Path) -> None:
    for name in recipe_names():
        assert trained(name, corpus, runs / name) == 0  # finished already, unless this test runs alone
    folders = [str(checkpoint_folder(runs / name, 20)) for name in recipe_names()]
    environment = {**os.environ, "HF_MODULES_CACHE": str(runs / "modules"), "HF_HUB_OFFLINE": "1"}
    shown = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *folders], capture_output=True, text=True, env=environment, cwd=runs
    )
    assert shown.returncode == 0, shown.stderr
    assert [line.split(",")[0] for line in shown.stdout.split()] == [
        operator(name).split(",")[0] for name in recipe_names()
    ]
