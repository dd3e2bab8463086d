"""Every shipped recipe trains, resumes bit for bit, and leaves a checkpoint that opens without symbert."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from durable.files import file_sha256
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments
from train.checkpoint import checkpoint_folder
from train.pretrain import pretrain
from train.recipe import Recipe, load_recipe, recipe_names

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


def shrunk(name: str) -> Recipe:
    """The recipe at depth 2 (its layers 1 and 2, where v2 changes its operator), a small width and batches of 4."""
    operators = load_recipe(name).model.attention_operator.split(",")
    two = ",".join(operators[1:3] if len(operators) > 1 else operators)
    assignments = tiny_assignments(training__batch_size=4, model__attention_operator=f'"{two}"')
    return load_recipe(name, assignments=assignments)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_trains_and_resumes_bit_for_bit(name: str, corpus: Path, runs: Path) -> None:
    recipe = shrunk(name)
    whole, parts = runs / name, runs / f"{name}-in-parts"
    outcome = pretrain(corpus, whole, recipe, device="cpu")
    assert outcome.finished
    assert pretrain(corpus, parts, recipe, device="cpu", stop_after_step=7).exit_code == 75
    assert pretrain(corpus, parts, recipe, device="cpu").finished
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert file_sha256(checkpoint_folder(parts, 20) / file) == file_sha256(checkpoint_folder(whole, 20) / file)


def test_the_checkpoint_of_every_recipe_opens_where_symbert_is_not_installed(corpus: Path, runs: Path) -> None:
    for name in recipe_names():
        pretrain(corpus, runs / name, shrunk(name), device="cpu")  # finished already, unless this test runs alone
    folders = [str(checkpoint_folder(runs / name, 20)) for name in recipe_names()]
    environment = {**os.environ, "HF_MODULES_CACHE": str(runs / "modules"), "HF_HUB_OFFLINE": "1"}
    shown = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *folders], capture_output=True, text=True, env=environment, cwd=runs
    )
    assert shown.returncode == 0, shown.stderr
    operators = [shrunk(name).model.attention_operator for name in recipe_names()]
    assert [line.split(",")[0] for line in shown.stdout.split()] == [names.split(",")[0] for names in operators]
