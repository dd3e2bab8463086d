"""`symbert export`: a checkpoint in a form that other programs load."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import AsJson, print_json

if TYPE_CHECKING:
    from symbert import SymbertPreTrainedModel


class Format(StrEnum):
    """What `--format` may be."""

    bert = "bert"
    onnx = "onnx"


Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint folder.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist.")]
As = Annotated[
    Format,
    typer.Option("--format", help="bert: a stock BERT, if the model folds into one. onnx: a graph for onnxruntime."),
]
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "added_tokens.json",
)
# Sizes at which the graph is compared: another batch and length than it was traced with.
CHECKED_SHAPE = (3, 7)


def export(checkpoint: Checkpoint, out: Out, form: As = Format.bert, as_json: AsJson = False) -> None:
    """Write CHECKPOINT as a folder that needs none of symbert's code, and compare the two models' outputs."""
    from transformers.utils import logging

    from durable.errors import DurableError, with_hint
    from durable.files import whole_folder
    from symbert.checkpoint import load_checkpoint

    logging.disable_progress_bar()
    if out.exists():
        raise with_hint(DurableError(f"{out} exists already, expected a new folder"), "give another --out")
    model = load_checkpoint(checkpoint)
    with whole_folder(out, name="export") as partial:
        difference = {Format.bert: write_bert, Format.onnx: write_graph}[form](model, partial)
        copied = copy_tokenizer(checkpoint, partial)
    facts: dict[str, Any] = {
        "format": form.value,
        "out": str(out),
        "tokenizer": copied,
        "largest_difference": difference,
    }
    if as_json:
        print_json(facts)
        return
    print(f"{out}: {form.value}, largest difference of the outputs on random tokens {difference:.1e}")
    if not copied:
        print(f"{checkpoint} holds no tokenizer, so neither does {out}")


def write_bert(model: "SymbertPreTrainedModel", folder: Path) -> float:
    """Save the folded model; returns the largest difference of the outputs."""
    from symbert.export import fold, largest_difference

    bert = fold(model)
    bert.save_pretrained(folder)
    return largest_difference(model, bert)


def write_graph(model: "SymbertPreTrainedModel", folder: Path) -> float:
    """Save model.onnx and config.json; returns the largest difference of the outputs in onnxruntime."""
    import torch

    from durable.errors import DurableError, with_hint
    from symbert.onnx_graph import INPUTS, example_inputs, output_names, write_onnx

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ModuleNotFoundError as error:
        raise with_hint(
            DurableError(f"{error.name} is not installed, expected the extra `onnx`"), "pip install 'symbert[onnx]'"
        ) from None
    write_onnx(model, folder / "model.onnx")
    config = model.config.to_dict()
    config.pop("auto_map")  # the code that it names is not part of this folder
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n", "utf-8")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = example_inputs(model, *CHECKED_SHAPE)
    found = session.run(output_names(model), {name: inputs[name].numpy() for name in INPUTS})
    with torch.no_grad():
        expected = model(**inputs, return_dict=False)
    seen = inputs["attention_mask"].bool()
    differences = [
        (torch.from_numpy(one) - other)[seen if other.shape[:2] == seen.shape else ...].abs().max().item()
        for one, other in zip(found, expected, strict=True)
    ]
    return max(differences)


def copy_tokenizer(checkpoint: Path, folder: Path) -> list[str]:
    """Copy the checkpoint's tokenizer files; returns their names."""
    import shutil

    names = [name for name in TOKENIZER_FILES if (checkpoint / name).is_file()]
    for name in names:
        shutil.copyfile(checkpoint / name, folder / name)
    return names
