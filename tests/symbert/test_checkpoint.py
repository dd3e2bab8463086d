"""Checkpoints: what is saved is what loads, here and where symbert is not installed."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from symbert import (
    OPERATORS,
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertModel,
)
from symbert.configuration_symbert import LEAST_TRANSFORMERS

HEADS = {
    "AutoModel": (AutoModel, SymbertModel),
    "AutoModelForMaskedLM": (AutoModelForMaskedLM, SymbertForMaskedLM),
    "AutoModelForSequenceClassification": (AutoModelForSequenceClassification, SymbertForSequenceClassification),
    "AutoModelForTokenClassification": (AutoModelForTokenClassification, SymbertForTokenClassification),
    "AutoModelForQuestionAnswering": (AutoModelForQuestionAnswering, SymbertForQuestionAnswering),
}
STRANGER = """
import json, sys
from pathlib import Path
sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "symbert").exists()]
try:
    import symbert
except ModuleNotFoundError:
    pass
else:
    raise SystemExit(f"symbert can be seen at {symbert.__file__}")
import torch, transformers
from safetensors.torch import save_file
torch.set_num_threads(1)
folder = Path(sys.argv[1])
for checkpoint in sorted(folder.glob("*-AutoModel*")):
    auto_class = getattr(transformers, checkpoint.name.partition("-")[2])
    model = auto_class.from_pretrained(checkpoint, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    ids = torch.tensor(json.loads((folder / "ids.json").read_text()))
    save_file({"output": model(ids)[0].detach().contiguous()}, checkpoint / "output.safetensors")
"""


def saved(model: Any, folder: Path) -> Path:
    # Other values than any initialisation gives: one that ran again after loading would show.
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_loads_bit_for_bit(config: Any, operator: str, head: str, tmp_path: Path) -> None:
    auto_class, model_class = HEADS[head]
    model = model_class(config(operator))
    loaded = auto_class.from_pretrained(saved(model, tmp_path))
    assert type(loaded) is model_class
    expected, found = model.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_a_pretrained_encoder_starts_a_classifier_and_only_its_new_parts_are_initialised(
    config: Any, tmp_path: Path
) -> None:
    pretrained = SymbertForMaskedLM(config("pairwise"))
    loaded = AutoModelForSequenceClassification.from_pretrained(saved(pretrained, tmp_path), num_labels=3)
    assert loaded.classifier.weight.shape == (3, 21)
    assert not loaded.classifier.bias.any()
    assert loaded.symbert.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.2)
    for name, weight in pretrained.symbert.state_dict().items():
        assert torch.equal(loaded.symbert.state_dict()[name], weight), name


@pytest.mark.parametrize("init", ["normal", "scaled", "identity"])
def test_parts_that_a_checkpoint_lacks_get_the_operators_own_initialisation(
    config: Any, init: str, tmp_path: Path
) -> None:
    model = SymbertForMaskedLM(config("symmetric"))
    saved(model, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text("utf-8"))
    fields.update(attention_operator="pairwise", pairwise_init=init)
    (tmp_path / "config.json").write_text(json.dumps(fields), "utf-8")
    pairwise = AutoModelForMaskedLM.from_pretrained(tmp_path).symbert.encoder.layer[0].attention.self.pairwise
    if init == "identity":
        assert torch.equal(pairwise, torch.eye(7).expand(3, 7, 7))
    else:
        assert pairwise.std().item() == pytest.approx(1.0 if init == "normal" else 7**-0.5, rel=0.2)


def test_a_part_that_is_missing_does_not_have_its_loaded_neighbours_initialised_again(
    config: Any, tmp_path: Path
) -> None:
    model = SymbertForMaskedLM(config(["pairwise", "shared"]))
    saved(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.endswith("self.value.bias")}
    kept = {name: weight for name, weight in kept.items() if not name.endswith("self.key_scale")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).state_dict()
    assert torch.equal(loaded["symbert.encoder.layer.1.attention.self.key_scale"], torch.ones(21))
    for name, weight in kept.items():
        assert torch.equal(loaded[name], weight), name


@pytest.fixture
def _empty_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_empty_memory_is_nan")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_no_parameter_is_left_uninitialised(config: Any, operator: str, head: str, tmp_path: Path) -> None:
    assert torch.empty(3).isnan().all()
    auto_class, model_class = HEADS[head]
    fresh = model_class(config(operator, position_embedding="sinusoidal"))
    SymbertModel(config(operator, position_embedding="sinusoidal")).save_pretrained(tmp_path)
    for model in (fresh, auto_class.from_pretrained(tmp_path)):
        for name, parameter in model.named_parameters():
            assert parameter.isfinite().all(), name
            if name.endswith("bias"):
                assert not parameter.any(), name


@pytest.mark.slow
def test_every_checkpoint_loads_in_a_process_that_cannot_see_symbert_and_gives_the_same_outputs(
    config: Any, tmp_path: Path
) -> None:
    ids = torch.randint(1, 53, (2, 5))
    (tmp_path / "ids.json").write_text(json.dumps(ids.tolist()))
    outputs = {}
    for operator in OPERATORS:
        for head, (_, model_class) in HEADS.items():
            model = model_class(config(operator)).eval()
            folder = saved(model, tmp_path / f"{operator}-{head}")
            outputs[folder] = model(ids)[0]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", STRANGER, str(tmp_path)]
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    for folder, expected in outputs.items():
        assert torch.equal(load_file(folder / "output.safetensors")["output"], expected), folder.name


def test_a_masked_language_model_starts_any_head_where_symbert_is_not_installed(config: Any, tmp_path: Path) -> None:
    model = saved(SymbertForMaskedLM(config("pairwise")), tmp_path)
    names = json.loads((model / "config.json").read_text("utf-8"))["auto_map"]
    for head, (_, model_class) in HEADS.items():
        assert names[head] == f"modeling_symbert.{model_class.__name__}"
    modules = {path.name for path in tmp_path.glob("*.py")}
    package = Path(sys.modules["symbert"].__file__ or "").parent
    assert modules == {"attention.py", "configuration_symbert.py", "errors.py", "layers.py", "modeling_symbert.py"}
    for name in modules:
        assert (tmp_path / name).read_bytes() == (package / name).read_bytes()


def test_the_code_of_a_checkpoint_names_the_transformers_that_it_needs(config: Any, tmp_path: Path) -> None:
    SymbertModel(config()).save_pretrained(tmp_path / "model")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "transformers.py").write_text('__version__ = "4.57.6"\n', "utf-8")
    code = f"import sys; sys.path[:0] = {[str(tmp_path / 'old'), str(tmp_path)]}; import model.configuration_symbert"
    finished = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    needed = ".".join(map(str, LEAST_TRANSFORMERS))
    assert finished.stderr.splitlines()[-1] == (
        f"ImportError: this model needs transformers {needed} or newer, and this is 4.57.6: "
        "pip install --upgrade transformers"
    )
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    assert f"transformers>={needed}" in project["dependencies"]
