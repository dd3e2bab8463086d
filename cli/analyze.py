"""`symbert analyze`: how symmetric and how sharp a model's attention is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.checkpoint import model_folder
from cli.console import AsJson, print_json

Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint or run folder, or a folder of a stock BERT.")]
Text = Annotated[Path | None, typer.Option("--text", help="A UTF-8 file; each line that is not blank is one sequence.")]
Sequences = Annotated[int, typer.Option("--max-sequences", min=1, help="Read at most this many lines of the text.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw the heads of every layer into this .svg, .pdf or .png.")
]
COLUMNS = ("symmetry", "distance_from_identity", "entropy", "asymmetry")


def analyze(
    checkpoint: Checkpoint,
    text: Text = None,
    max_sequences: Sequences = 64,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Print the symmetry score of every layer's and head's query-key matrix, the spectrum of pairwise's matrices and,
    on a text, the entropy of the attention and its asymmetry ||A - A^T|| / ||A||.
    """
    from transformers.utils import logging

    from symbert.analysis import analyse, load_encoder

    logging.disable_progress_bar()
    folder = model_folder(checkpoint)
    model = load_encoder(folder)
    sequences = read_sequences(text, folder, max_sequences, model.config.max_position_embeddings) if text else []
    found = analyse(model, sequences)
    if plot is not None:
        from report.attention import draw

        draw(found, plot)
    if as_json:
        print_json({"checkpoint": str(folder), **found})
    else:
        print(table(found))


def read_sequences(text: Path, checkpoint: Path, most: int, longest: int) -> list[list[int]]:
    """Token ids of the text's first lines, each cut at `longest` tokens, special tokens added."""
    from durable.errors import DurableError
    from train.tokenizer import open_checked_tokenizer

    if not text.is_file():
        raise DurableError(f"{text} is not a file, expected a text")
    try:
        content = text.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DurableError(f"{text} is not UTF-8 text: {error}") from None
    lines = [line for line in content.splitlines() if line.strip()][:most]
    if not lines:
        raise DurableError(f"{text} holds no text")
    if not (checkpoint / "tokenizer_config.json").is_file():
        raise DurableError(f"{checkpoint} holds no tokenizer, expected tokenizer_config.json beside the weights")
    tokenizer = open_checked_tokenizer(checkpoint)
    ids: list[list[int]] = tokenizer(lines, truncation=True, max_length=longest)["input_ids"]
    return ids


def table(found: dict[str, Any]) -> str:
    """One line per layer with the means over its heads, and a line of means over all heads."""
    names = [name for name in COLUMNS if name in found["means"]]
    widths = {name: max(len(name), 8) + 2 for name in names}
    lines = [f"{'layer':<7}{'operator':<11}" + "".join(f"{name:>{widths[name]}}" for name in names)]
    for layer in found["layers"]:
        cells = [mean_cell([head[name] for head in layer["heads"] if name in head], widths[name]) for name in names]
        lines.append(f"{layer['layer']:<7}{layer['operator']:<11}" + "".join(cells))
    means = "".join(f"{found['means'][name]:>{widths[name]}.4f}" for name in names)
    lines.append(f"{'all':<7}{'':<11}{means}")
    return "\n".join(lines)


def mean_cell(values: list[float], width: int) -> str:
    return f"{sum(values) / len(values):>{width}.4f}" if values else f"{'-':>{width}}"
