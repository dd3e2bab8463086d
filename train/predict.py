"""Masked prediction: the model's forward pass at the masked positions, and the evaluation that is made of it.

Shape suffixes: B samples, L tokens a sample, M masked tokens, V vocabulary.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.compiled import refused_in_one_line
from train.corpus import Split
from train.cpu import quicken
from train.data import EVALUATION_MASKS, Batch, Masking
from train.device import sent
from train.gpu import pad_head
from train.ranks import ALONE, Ranks
from train.recipe import EvaluationSection

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DEFAULT_MICRO_BATCH = {"cpu": 8, "cuda": 64}


class MaskedPrediction(nn.Module):
    """A masked language model and its loss at the masked positions alone: what is compiled, and shared among ranks."""

    def __init__(self, model: Any, device: torch.device, precision: str) -> None:
        super().__init__()
        self.model, self.device_type, self.dtype = model, device.type, PRECISIONS[precision]

    def forward(self, input_ids_BL: Tensor, positions_M: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor | None]:
        """Negative log-likelihoods (M,) in nats, 0 for the label -100; and, in evaluation, which guesses are right."""
        is_cast = self.dtype is not torch.float32
        with torch.autocast(self.device_type, self.dtype) if is_cast else contextlib.nullcontext():
            logits_MV = self.model(input_ids=input_ids_BL, masked_positions=positions_M).logits
        losses_M = F.cross_entropy(logits_MV.float(), labels_M, reduction="none")
        return losses_M, None if self.training else logits_MV.argmax(-1) == labels_M


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
    """A masked language model on a device, in a precision, fed with micro-batches of at most some size.

    Compiled, it is always given as many samples as the first micro-batch has, and as many masked positions as
    `capacity` says, so that shapes never change: the rest are samples without a label, and position 0 with the label
    -100. No masked token is left out; a micro-batch with more takes the next capacity.
    """

    def __init__(
        self, model: Any, device: torch.device, precision: str, micro_batch_size: int, masking: float | None = None
    ) -> None:
        """`masking` is the probability of a token to be masked; given, the model is compiled for it."""
        self.device, self.micro_batch_size, self.masking = device, micro_batch_size, masking
        self.model = model.to(device)
        if device.type == "cpu":
            quicken(self.model)
        else:
            pad_head(self.model)
        self.forward: Any = MaskedPrediction(self.model, device, precision)
        self.module = self.forward
        if masking is not None:
            self.forward = torch.compile(self.forward, dynamic=False)

    def __call__(self, part: Batch, samples: int) -> tuple[Tensor, Tensor | None]:
        """Losses (M,), and in evaluation right guesses (M,), of one micro-batch; M may be padded with zeros.

        `samples` is how many its micro-batches have, the last of which may have fewer.
        """
        if self.masking is not None:
            tokens = samples * part.input_ids.shape[1]
            part = part.padded(samples, capacity(tokens, self.masking, len(part.labels)))
        inputs = [sent(array, self.device) for array in (part.input_ids, part.positions, part.labels)]
        if self.masking is None:
            return self.forward(*inputs)
        with refused_in_one_line():
            return self.forward(*inputs)

    def even_size(self, samples: int) -> int:
        """The size of micro-batches into which `samples` are divided evenly; the last one may have fewer."""
        return math.ceil(samples / math.ceil(samples / self.micro_batch_size)) if samples else 1

    @torch.no_grad()
    def evaluate(self, split: Split, masking: Masking, settings: EvaluationSection, ranks: Ranks = ALONE) -> Evaluation:
        """Masked prediction on the first samples of `split`, with masks that no other setting changes.

        Every rank takes a share of the samples, and all get the whole result.
        """
        self.module.eval()
        samples = np.arange(min(len(split), settings.samples), dtype=np.uint64)
        first, last = ranks.share(len(samples))
        size = self.even_size(last - first)
        owners, found = [np.zeros(0, np.int64)], [torch.zeros(2, 0, device=self.device)]
        for start in range(first, last, size):
            now = samples[start : min(last, start + size)]
            keys = (EVALUATION_MASKS, settings.mask_seed)
            part = masking(split.rows(now), now, np.zeros_like(now), keys)
            losses_M, hits_M = self(part, size)
            assert hits_M is not None
            owners.append(start + part.positions // part.input_ids.shape[1])
            found.append(torch.stack([losses_M, hits_M])[:, : len(part.labels)])
        # Read once, at the end: every read waits for the device.
        losses, hits = torch.cat(found, dim=1).double().cpu().numpy()
        of_samples = np.concatenate(owners)
        sums = [np.bincount(of_samples, values, len(samples)) for values in (losses, None, hits)]
        return _evaluation(*ranks.total(torch.from_numpy(np.stack(sums).astype(np.float64)), self.device).numpy())


def capacity(tokens: int, probability: float, needed: int = 0) -> int:
    """Masked positions to make room for among `tokens`: the mean and six standard deviations, in steps of 64."""
    usual = probability * tokens + 6 * math.sqrt(tokens * probability * (1 - probability))
    return 64 * math.ceil(max(usual, needed) / 64)


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
