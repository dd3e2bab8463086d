"""Masked prediction: the model's forward pass at the masked positions, and the evaluation that is made of it.

Shape suffixes: B samples, L tokens a sample, M masked tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from train.corpus import Split
from train.cpu import quicken
from train.data import EVALUATION_MASKS, Batch, Masking
from train.ranks import ALONE, Ranks
from train.recipe import EvaluationSection

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DEFAULT_MICRO_BATCH = {"cpu": 8, "cuda": 64}


class Prediction(NamedTuple):
    """What a model says at the masked positions."""

    losses: Tensor
    """(M,) negative log-likelihood of the right token, in nats."""
    logits: Tensor
    """(M, V)"""
    labels: Tensor
    """(M,)"""


@dataclass(frozen=True)
class Evaluation:
    """Masked prediction over the evaluation samples."""

    loss: float
    """Mean negative log-likelihood of a masked token, in nats."""
    standard_error: float
    """Of that loss, with samples (not tokens, which are alike within a sample) as the independent draws."""
    accuracy: float
    """Share of masked tokens whose most probable token is the right one."""
    samples: int


class Predictor:
    """A masked language model on a device, in a precision, fed with micro-batches of at most some size."""

    def __init__(self, model: Any, device: torch.device, precision: str, micro_batch_size: int) -> None:
        self.device, self.dtype, self.micro_batch_size = device, PRECISIONS[precision], micro_batch_size
        self.model = model.to(device)
        if device.type == "cpu":
            quicken(self.model)
        self.forward = self.model

    def __call__(self, part: Batch) -> Prediction:
        """Predict the masked tokens of one micro-batch, and no others."""
        input_ids_BL, positions_M, labels_M = (
            self._sent(array) for array in (part.input_ids, part.positions, part.labels)
        )
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            logits_MV = self.forward(input_ids=input_ids_BL, masked_positions=positions_M).logits
        return Prediction(F.cross_entropy(logits_MV.float(), labels_M, reduction="none"), logits_MV, labels_M)

    def parts(self, batch: Batch) -> list[Batch]:
        """A batch as micro-batches, in order."""
        size = self.micro_batch_size
        return [batch.part(start, start + size) for start in range(0, len(batch.input_ids), size)]

    @torch.no_grad()
    def evaluate(self, split: Split, masking: Masking, settings: EvaluationSection, ranks: Ranks = ALONE) -> Evaluation:
        """Masked prediction on the first samples of `split`, with masks that no other setting changes.

        Every rank takes a share of the samples, and all get the whole result.
        """
        self.model.eval()
        samples = np.arange(min(len(split), settings.samples), dtype=np.uint64)
        sums = np.zeros((3, len(samples)))  # loss, masked tokens and right guesses of each sample
        first, last = ranks.share(len(samples))
        for start in range(first, last, self.micro_batch_size):
            stop = min(last, start + self.micro_batch_size)
            now = samples[start:stop]
            keys = (EVALUATION_MASKS, settings.mask_seed)
            part = masking(split.rows(now), now, np.zeros_like(now), keys)
            found = self(part)
            owners = part.positions // part.input_ids.shape[1]
            hits = found.logits.argmax(-1) == found.labels
            for row, values in zip(sums, (found.losses, torch.ones_like(hits), hits), strict=True):
                row[start:stop] = np.bincount(owners, values.double().cpu().numpy(), len(now))
        return _evaluation(*ranks.total(torch.from_numpy(sums), self.device).numpy())

    def _sent(self, array: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def default_micro_batch_size(device: torch.device) -> int:
    """What an ordinary machine holds at a length of 512."""
    return DEFAULT_MICRO_BATCH[device.type]


def _evaluation(losses: np.ndarray, counts: np.ndarray, hits: np.ndarray) -> Evaluation:
    total = max(1.0, counts.sum())
    loss = losses.sum() / total
    # The variance of a ratio of two sums over samples, by linearisation (Cochran, 1977, section 6.3).
    residuals = losses - loss * counts
    draws = len(losses)
    variance = (residuals**2).sum() * draws / max(1, draws - 1) / total**2
    return Evaluation(float(loss), float(np.sqrt(variance)), float(hits.sum() / total), draws)
