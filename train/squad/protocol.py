"""How a model is fine-tuned on SQuAD: as Devlin et al. (2019, arXiv 1810.04805, sections 4.2 and 4.3)."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from durable.settings import validated, with_assignments
from train.glue.protocol import FineTuning

BY_VERSION: dict[str, dict[str, Any]] = {"1.1": {"epochs": 3, "batch_size": 32}, "2.0": {"epochs": 2, "batch_size": 48}}
"""What BERT's paper does otherwise for one version than for the other."""


class SquadProtocol(FineTuning):
    """Fine-tuning as in Devlin et al. (2019): the windows of their code, and learning rate 5e-5."""

    max_length: int = Field(384, ge=16)
    """Longest input in tokens: question, window of the paragraph and special tokens."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    doc_stride: int = Field(128, gt=0)
    """Tokens from the beginning of one window to that of the next."""
    max_question_length: int = Field(64, gt=0)
    """Longest question in tokens; what follows is cut off."""
    max_answer_length: int = Field(30, gt=0)
    """Longest answer in tokens that is predicted."""
    best: int = Field(20, gt=0)
    """How many of the likeliest starts and ends of a window are paired."""
    null_threshold: float = 0.0
    """Version 2.0: no answer is predicted where its score is above that of the best answer by more than this."""


def resolve_squad_protocol(version: str, assignments: Iterable[str] = ()) -> SquadProtocol:
    """The protocol of a version with `key=value` settings. Raises DurableError for an unknown key or a wrong value."""
    return validated(SquadProtocol, with_assignments(BY_VERSION[version], assignments), what="protocol")


ASSUMPTIONS = {
    "batch_and_epochs": "of Devlin et al. (2019): version 1.1 batches of 32 over 3 epochs, 2.0 batches of 48 over 2",
    "optimizer": "AdamW with betas 0.9 and 0.999, epsilon 1e-8, gradients clipped at norm 1, warm-up over 10 %, no "
    "decay, as in symbert glue; BERT's own code decays by 0.01 and has epsilon 1e-6",
    "precision": "float32, on a GPU with products in TF32 unless tf32 is false, as in symbert glue",
    "clipping": "to max_gradient_norm; where it is 0 gradients are left as they are",
    "windows": "a paragraph's tokens in windows whose beginnings lie doc_stride apart, up to the one that holds its "
    "end, as in BERT's code; a window without the whole answer is trained towards [CLS]",
    "answer": "the first one given is trained; the validation answers all count",
    "head": "one linear layer for start and end: weights N(0, initializer_range), biases 0, drawn from the seed and "
    "the parameter's name",
    "loss": "mean of both cross-entropies over the positions of the window; padding is no position",
    "decoding": "of the likeliest `best` starts and ends of each window the pair with the highest sum; a start counts "
    "only in the window where its token has most context, as in BERT's code; the text is cut from the paragraph itself",
    "no_answer": "version 2.0: the lowest sum at [CLS] over the windows against the best pair; null_threshold is not "
    "tuned on the validation set",
    "order": "each epoch is a permutation drawn from (seed, epoch), cut into batches; the same for every model",
    "threads": "one CPU thread a cell, so that scores do not depend on the number of cores",
}
"""What is not said elsewhere; part of the record of every run."""
