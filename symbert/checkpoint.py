"""Open a checkpoint folder of this package with the head it was saved with, and refuse what is not one."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from .configuration_symbert import SymbertConfig
from .errors import SymbertError, unknown_name
from .export import BERT_CLASSES
from .modeling_symbert import SymbertPreTrainedModel

# What transformers raises for a field whose value it cannot use.
MISFITS = (ValueError, TypeError, AttributeError, LookupError)
MODEL_CLASSES = {model_class.__name__: model_class for model_class in BERT_CLASSES}


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a model folder's config.json. Raises SymbertError, naming the file, if it is none."""
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        error = SymbertError(f"{folder} holds no config.json, expected a checkpoint folder")
        if hint := what_else(folder):
            error.add_note(hint)
        raise error from None
    except ValueError as error:
        raise SymbertError(f"{path} is damaged: {error}") from None
    if not isinstance(fields, dict):
        raise SymbertError(f"{path} is damaged: expected a JSON object")
    return fields


def refuse_quantized(folder: Path, fields: dict[str, Any]) -> None:
    """Raise SymbertError if config.json says that the weights are quantized: no command here computes with such."""
    if fields.get("quantization_config"):
        error = SymbertError(
            f"{folder / 'config.json'}: `quantization_config` is set; expected weights in floating point"
        )
        error.add_note("load it with transformers, call model.dequantize(), and save it again")
        raise error


def refuse_non_finite(folder: Path, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise SymbertError, naming the first of them, if named `weights` are NaN or infinite."""
    for name, weight in weights:
        if not weight.isfinite().all():
            raise SymbertError(f"{folder}: the weight {name} holds NaN or infinity; its training has diverged")


def answer_plainly(model: Any) -> None:
    """Have a model return named outputs and no more than its head's, whatever its saved configuration asks for."""
    model.config.output_attentions = model.config.output_hidden_states = False
    model.config.return_dict = True


def what_else(folder: Path) -> str | None:
    """What to do with a folder that holds no model of its own, but what other programs write beside one."""
    if (folder / "adapter_config.json").is_file():
        return "peft's model.merge_and_unload().save_pretrained(NEW) makes a checkpoint of an adapter and its model"
    inside = sorted(path.parent.name for path in folder.glob("checkpoint-*/config.json"))
    return f"name a checkpoint within it, such as {folder / inside[-1]}" if inside else None


@contextlib.contextmanager
def whole_weights(folder: Path) -> Iterator[None]:
    """Turn the refusal of weights that are cut or no weights at all into a SymbertError that names the folder.

    The configuration's own refusals get the name of its file, and keep their hints.
    """
    try:
        yield
    except SafetensorError as error:
        raise SymbertError(f"{folder}: the weights are damaged: {error}") from None
    except ValueError as error:
        raise _of_config(folder, error) from None


def check_config(folder: Path, kind: type[PreTrainedConfig]) -> None:
    """Raise SymbertError, naming config.json, if it makes no configuration of that kind."""
    try:
        kind.from_pretrained(folder, local_files_only=True)
    except MISFITS as error:
        raise _of_config(folder, error) from None


def _of_config(folder: Path, error: Exception) -> SymbertError:
    named = SymbertError(f"{folder / 'config.json'}: {str(error).splitlines()[0]}")
    for hint in getattr(error, "__notes__", []):
        named.add_note(hint)
    return named


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
    refuse_quantized(folder, fields)
    check_config(folder, SymbertConfig)
    with whole_weights(folder), _without_load_report():
        model, report = _model_class(fields).from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    refuse_misfits(folder, report, ("missing_keys", "unexpected_keys", "mismatched_keys"))
    answer_plainly(model)
    refuse_non_finite(folder, model.named_parameters())
    return model.eval()


def refuse_misfits(folder: Path, report: dict[str, Any], problems: Iterable[str]) -> None:
    """Raise SymbertError, naming the first weights, if from_pretrained reports one of these `problems`."""
    for problem in problems:
        if report[problem]:
            names = ", ".join(sorted(_named(key) for key in report[problem])[:3])
            raise SymbertError(f"{folder}: the weights do not fit config.json; {problem.replace('_', ' ')}: {names}")


def _named(key: str | tuple[str, torch.Size, torch.Size]) -> str:
    if isinstance(key, str):
        return key
    name, found, expected = key
    return f"{name} {tuple(found)} instead of {tuple(expected)}"


def _model_class(fields: dict[str, Any]) -> Any:
    architectures = fields.get("architectures") or ["SymbertForMaskedLM"]
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise SymbertError(f"`architectures` is {architectures!r}; expected a list of one name")
    if architectures[0] not in MODEL_CLASSES:
        raise unknown_name("a model of symbert", str(architectures[0]), list(MODEL_CLASSES))
    return MODEL_CLASSES[architectures[0]]


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers' table of misfits off the screen: the first of them are refused by name."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
