"""`symbert export`: a checkpoint in a form that other programs load."""

import contextlib
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.checkpoint import model_folder, run_of
from cli.console import AsJson, print_json, say

if TYPE_CHECKING:
    from symbert import SymbertPreTrainedModel


class Format(StrEnum):
    """What `--format` may be."""

    bert = "bert"
    onnx = "onnx"
    hub = "hub"


Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint folder, or a run folder for its newest checkpoint.")]
Corpus = Annotated[Path | None, typer.Option("--corpus", help="The corpus folder, for the model card's funnel (hub).")]
Glue = Annotated[Path | None, typer.Option("--glue", help="A folder of `symbert glue`, for the card's table (hub).")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist.")]
As = Annotated[
    Format,
    typer.Option(
        "--format",
        help="bert: a stock BERT, if the model folds into one. onnx: a graph for onnxruntime. hub: the model with its "
        "code and a model card, for `symbert push`.",
    ),
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


def export(
    checkpoint: Checkpoint,
    out: Out,
    form: As = Format.bert,
    corpus: Corpus = None,
    glue: Glue = None,
    as_json: AsJson = False,
) -> None:
    """Write CHECKPOINT as a folder for other programs; bert and onnx need none of symbert's code, and are compared."""
    from transformers.utils import logging

    from durable.errors import DurableError, with_hint
    from durable.files import whole_folder
    from symbert.checkpoint import load_checkpoint

    logging.disable_progress_bar()
    if out.exists():
        raise with_hint(DurableError(f"{out} exists already, expected a new folder"), "give another --out")
    folder = model_folder(checkpoint)
    model = load_checkpoint(folder)
    difference = None
    with whole_folder(out, name="export") as partial:
        if form is Format.hub:
            write_hub(model, partial, out.name, run_of(folder), corpus, glue)
        else:
            difference = (write_bert if form is Format.bert else write_graph)(model, partial)
        copied, added = copy_tokenizer(folder, partial)
    if added:
        named = ", ".join(f"{name} {json.dumps(value)}" for name, value in added.items())
        say(f"{out}/tokenizer_config.json says {named}, as tokenizer.json does; that of {folder} contradicts it")
    if not copied:
        say(f"{folder} holds no tokenizer, so neither does {out}")
    facts: dict[str, Any] = {
        "format": form.value,
        "out": str(out),
        "tokenizer": copied,
        "largest_difference": difference,
    }
    if as_json:
        print_json(facts)
    elif difference is None:
        print(f"{out}: {form.value}; read README.md before you push it")
    else:
        print(f"{out}: {form.value}, largest difference of the outputs on random tokens {difference:.1e}")


def write_hub(
    model: "SymbertPreTrainedModel", folder: Path, name: str, run: Path | None, corpus: Path | None, glue: Path | None
) -> None:
    """Save the model with its code and a model card."""
    from durable.files import write_text
    from report.card import model_card

    model.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    card = model_card(name, config, parameters=parameters, run=run, corpus=corpus, glue=glue)
    write_text(folder / "README.md", card)


def write_bert(model: "SymbertPreTrainedModel", folder: Path) -> float:
    """Save the folded model; returns the largest difference of the outputs."""
    from symbert.export import compare_with, fold

    bert = fold(model)
    bert.save_pretrained(folder)
    return compare_with(model, bert)


def write_graph(model: "SymbertPreTrainedModel", folder: Path) -> float:
    """Save model.onnx and config.json; returns the largest difference of the outputs in onnxruntime."""
    import torch

    from durable.errors import DurableError, with_hint
    from symbert.export import compare
    from symbert.onnx_graph import INPUTS, example_inputs, output_names, write_onnx

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ModuleNotFoundError as error:
        raise with_hint(
            DurableError(f"{error.name} is not installed, expected the extra `onnx`"), "pip install 'symbert[onnx]'"
        ) from None
    write_onnx(model, folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps(graph_config(model), indent=2, sort_keys=True) + "\n", "utf-8")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = example_inputs(model, *CHECKED_SHAPE)
    found = session.run(output_names(model), {name: inputs[name].numpy() for name in INPUTS})
    with torch.no_grad():
        expected = model(**inputs, return_dict=False)
    return compare(expected, [torch.from_numpy(one) for one in found], inputs["attention_mask"].bool())


def graph_config(model: "SymbertPreTrainedModel") -> dict[str, Any]:
    """The config.json beside a graph: BERT's where the model folds, for programs that know no other, else its own."""
    from symbert import SymbertError
    from symbert.export import fold

    saved: Any = model
    with contextlib.suppress(SymbertError):
        saved = fold(model)
    fields: dict[str, Any] = saved.config.to_diff_dict()
    fields.pop("auto_map", None)  # the code that it names is not part of this folder
    return fields | {"architectures": [type(saved).__name__]}


def copy_tokenizer(checkpoint: Path, folder: Path) -> tuple[list[str], dict[str, bool | None]]:
    """Copy the checkpoint's tokenizer files; returns their names, and the settings that were written anew.

    The folder beside may have AutoTokenizer take another class, as model_type bert does where none is named.
    """
    import shutil

    from train.tokenizer import add_settings

    names = [name for name in TOKENIZER_FILES if (checkpoint / name).is_file()]
    for name in names:
        shutil.copyfile(checkpoint / name, folder / name)
    return names, add_settings(folder, called=checkpoint)
