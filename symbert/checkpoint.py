"""Open a checkpoint folder of this package with the head it was saved with, and refuse what is not one."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .errors import SymbertError, unknown_name
from .export import BERT_CLASSES
from .modeling_symbert import SymbertPreTrainedModel

MODEL_CLASSES = {model_class.__name__: model_class for model_class in BERT_CLASSES}


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a model folder's config.json. Raises SymbertError, naming the file, if it is none."""
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SymbertError(f"{folder} holds no config.json, expected a checkpoint folder") from None
    except ValueError as error:
        raise SymbertError(f"{path} is damaged: {error}") from None
    if not isinstance(fields, dict):
        raise SymbertError(f"{path} is damaged: expected a JSON object")
    return fields


@contextlib.contextmanager
def whole_weights(folder: Path) -> Iterator[None]:
    """Turn the refusal of weights that are cut or no weights at all into a SymbertError that names the folder."""
    try:
        yield
    except SafetensorError as error:
        raise SymbertError(f"{folder}: the weights are damaged: {error}") from None


def load_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> SymbertPreTrainedModel:
    """The model saved in `folder`, on the CPU and in evaluation mode.

    Raises SymbertError, naming the folder, if it holds no checkpoint of this package, or weights that are not those
    of its configuration.
    """
    fields = read_config(folder)
    if fields.get("model_type") != "symbert":
        raise SymbertError(f"{folder} holds a `{fields.get('model_type')}` model, expected a `symbert` one")
    if not any((folder / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        raise SymbertError(f"{folder} holds no weights, expected {SAFE_WEIGHTS_NAME}")
    (architecture,) = fields.get("architectures") or ["SymbertForMaskedLM"]
    if architecture not in MODEL_CLASSES:
        raise unknown_name("a model of symbert", architecture, list(MODEL_CLASSES))
    with whole_weights(folder):
        model, report = MODEL_CLASSES[architecture].from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            names = ", ".join(sorted(str(name) for name in report[problem])[:3])
            raise SymbertError(f"{folder}: the weights do not fit config.json; {problem.replace('_', ' ')}: {names}")
    return model.eval()
