"""`symbert evaluate`: masked loss and accuracy of checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from cli.checkpoint import model_folder
from cli.console import AsJson, print_json, say
from cli.values import Device, Precision


def evaluate(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoints, run folders (their newest checkpoint) or stock BERT folders.")
    ],
    data: Annotated[Path, typer.Option(help="Corpus folder; its validation split is used.", show_default=False)],
    samples: Annotated[int, typer.Option(min=1, help="At most so many samples, from the first.")] = 10_000,
    precision: Annotated[Precision, typer.Option(help="Of the matrix products; auto as in pretrain.")] = "auto",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate masked language models on a corpus's validation split, with the fixed masks that runs use.

    The standard error takes samples as the independent draws. The unigram entropy is the loss of always guessing by
    frequency.
    """
    from transformers.utils import logging

    from train.checkpoint import step_of
    from train.corpus import open_corpus
    from train.device import find_device, with_precision
    from train.evaluate import evaluate as evaluate_checkpoint
    from train.preflight import unigram_entropy
    from train.recipe import load_recipe

    logging.disable_progress_bar()
    chosen = load_recipe(assignments=[f"training.precision={precision}", f"evaluation.samples={samples}"])
    found = find_device(device)
    resolved = with_precision(chosen, found).training.precision
    corpus = open_corpus(data)
    entropy = unigram_entropy(corpus, samples)
    rows = []
    for checkpoint in checkpoints:
        folder = model_folder(checkpoint)
        result = evaluate_checkpoint(folder, corpus, found, resolved, chosen.evaluation, say)
        rows.append(
            {
                "checkpoint": str(checkpoint),
                "folder": str(folder),
                "step": step_of(folder),
                "evaluation_loss": result.loss,
                "evaluation_standard_error": result.standard_error,
                "evaluation_accuracy": result.accuracy,
                "samples": result.samples,
            }
        )
    if as_json:
        print_json({"data": str(data), "precision": resolved, "unigram_entropy": entropy, "checkpoints": rows})
        return
    for row in rows:
        # A run stands for one of its checkpoints: which one is part of the answer.
        print(
            f"{row['folder']}: loss {row['evaluation_loss']:.4f} ± {row['evaluation_standard_error']:.4f}, "
            f"accuracy {row['evaluation_accuracy']:.4f} on {row['samples']:,} samples"
        )
    print(f"unigram entropy {entropy:.4f}, precision {resolved}")
