"""The evaluation of pre-training for any checkpoint: a run's, an exported one, or a stock BERT."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from durable.errors import with_hint
from symbert.analysis import from_stock_bert
from symbert.checkpoint import load_checkpoint
from symbert.from_bert import is_stock_bert, load_bert
from train.corpus import Corpus
from train.data import Masking
from train.device import current
from train.errors import TrainError
from train.predict import Evaluation, Predictor, default_micro_batch_size
from train.recipe import EvaluationSection, MaskingSection
from train.run import Notice

TOKENIZER = "tokenizer.json"


def evaluate(
    folder: Path, corpus: Corpus, device: torch.device, precision: str, settings: EvaluationSection, notice: Notice
) -> Evaluation:
    """Masked loss and accuracy of a model folder on the corpus's validation split, with the masks that runs use.

    `notice` is told if the folder has no tokenizer to compare with the corpus's. Raises TrainError or SymbertError,
    naming the folder, if it holds no masked language model, or one of another tokenizer or of fewer positions than the
    samples have.
    """
    model: Any = from_stock_bert(load_bert(folder)) if is_stock_bert(folder) else load_checkpoint(folder)
    _check_fit(folder, model, corpus)
    if not (folder / TOKENIZER).is_file():
        notice(f"{folder} holds no {TOKENIZER}: taken to be of the corpus's tokenizer, which has as many entries")
    masking = Masking(**MaskingSection().model_dump(), vocabulary=corpus.vocabulary)
    with current(device):
        predictor = Predictor(model, device, precision, default_micro_batch_size(device))
        result = predictor.evaluate(corpus.validation, masking, settings)
    if not math.isfinite(result.loss):
        raise TrainError(
            f"{folder}: its loss in {precision} is {result.loss}; its weights are too large for its numbers"
        )
    return result


def _check_fit(folder: Path, model: Any, corpus: Corpus) -> None:
    if not hasattr(model, "cls"):
        raise TrainError(f"{folder} holds a {type(model).__name__}, expected a masked language model")
    if not len(corpus.validation):
        raise with_hint(
            TrainError(f"{corpus.folder} has no validation samples to evaluate on"),
            "prepare the corpus again with --validation-samples above 0",
        )
    entries, positions = model.config.vocab_size, model.config.max_position_embeddings
    if entries != corpus.vocabulary.size or _other_words(folder / TOKENIZER, corpus.tokenizer / TOKENIZER):
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
