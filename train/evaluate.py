"""The evaluation of pre-training for any checkpoint: a run's, an exported one, or a stock BERT."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from durable.errors import with_hint
from symbert.analysis import from_stock_bert
from symbert.checkpoint import load_checkpoint
from symbert.from_bert import is_stock_bert, load_bert
from train.checkpoint import newest_valid
from train.corpus import Corpus
from train.data import Masking
from train.errors import TrainError
from train.predict import Evaluation, Predictor, default_micro_batch_size
from train.recipe import EvaluationSection, MaskingSection
from train.run import Notice


def evaluate(
    checkpoint: Path, corpus: Corpus, device: torch.device, precision: str, settings: EvaluationSection, notice: Notice
) -> Evaluation:
    """Masked loss and accuracy of a checkpoint on the corpus's validation split, with the masks that runs use.

    A run folder stands for its newest valid checkpoint. Raises TrainError or SymbertError, naming the folder, if it
    holds no masked language model, or one of another tokenizer or of fewer positions than the samples have.
    """
    folder = _model_folder(checkpoint, notice)
    model: Any = from_stock_bert(load_bert(folder)) if is_stock_bert(folder) else load_checkpoint(folder)
    _check_fit(folder, model, corpus)
    masking = Masking(**MaskingSection().model_dump(), vocabulary=corpus.vocabulary)
    predictor = Predictor(model, device, precision, default_micro_batch_size(device))
    return predictor.evaluate(corpus.validation, masking, settings)


def _model_folder(folder: Path, notice: Notice) -> Path:
    if not folder.is_dir():
        raise TrainError(f"{folder} is not a folder, expected a checkpoint or a run")
    if not (folder / "checkpoints").is_dir():
        return folder
    newest = newest_valid(folder, notice)
    if newest is None:
        raise TrainError(f"{folder} is a run without a valid checkpoint")
    return newest.folder


def _check_fit(folder: Path, model: Any, corpus: Corpus) -> None:
    if not hasattr(model, "cls"):
        raise TrainError(f"{folder} holds a {type(model).__name__}, expected a masked language model")
    if not len(corpus.validation):
        raise with_hint(
            TrainError(f"{corpus.folder} has no validation samples to evaluate on"),
            "prepare the corpus again with --validation-samples above 0",
        )
    entries, positions = model.config.vocab_size, model.config.max_position_embeddings
    if entries != corpus.vocabulary.size or _other_words(
        folder / "tokenizer.json", corpus.tokenizer / "tokenizer.json"
    ):
        raise TrainError(
            f"{corpus.folder} was made with another tokenizer ({corpus.vocabulary.size:,} entries) than "
            f"that of {folder} ({entries:,} entries)"
        )
    if positions < corpus.sequence_length:
        raise TrainError(
            f"{corpus.folder} holds samples of {corpus.sequence_length} tokens, {folder} has {positions} positions"
        )


def _other_words(one: Path, other: Path) -> bool:
    """Whether both files exist and number their words differently; the files may differ otherwise."""
    if not one.is_file():
        return False
    return _words(one) != _words(other)


def _words(path: Path) -> str:
    vocabulary = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    return hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest()
