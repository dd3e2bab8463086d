"""One optimizer step, and one evaluation: the arithmetic of pre-training, without files.

Shape suffixes: B samples, L tokens a sample, M masked tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from train.corpus import Split
from train.cpu import quicken
from train.data import DROPOUT, EVALUATION_MASKS, TRAINING_MASKS, Batch, Masking, TrainingOrder, key
from train.optimizer import learning_rate, make_optimizer
from train.recipe import Recipe

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainingBatches:
    """The batch of each step, whoever asks for it and however often."""

    split: Split
    order: TrainingOrder
    masking: Masking
    batch_size: int

    def samples(self, step: int) -> Any:
        """The samples of step `step`, counted from 1, and their epochs."""
        return self.order.at((step - 1) * self.batch_size, step * self.batch_size)

    def __call__(self, step: int) -> Batch:
        samples, epochs = self.samples(step)
        return self.masking(self.split.rows(samples), samples, epochs, (TRAINING_MASKS, self.order.seed))


@dataclass(frozen=True)
class Evaluation:
    """Masked prediction over the evaluation samples."""

    loss: float
    """Mean negative log-likelihood of a masked token, in nats."""
    standard_error: float
    """Of that loss, with samples (not tokens, which are alike within a sample) as the independent draws."""
    accuracy: float
    """Share of masked tokens whose most probable token is the right one."""


class Trainer:
    """A model, its optimizer and the arithmetic of a step."""

    def __init__(self, model: Any, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.model = model.to(device)
        if device.type == "cpu":
            quicken(self.model)
        self.optimizer = make_optimizer(model, recipe.optimizer)
        self.dtype = PRECISIONS[recipe.training.precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        # 1 from the first step on whose gradient is not finite: the fused optimizer then leaves the weights alone,
        # this step and every later one, without the host having to wait for the device to know.
        self.halted = torch.zeros((), device=device)

    def step(self, step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take optimizer step `step`; returns loss per masked token and gradient norm before clipping.

        Both stay on the device: reading them is what waits for it. The loss is a mean over all masked tokens of
        the step, so that it does not depend on how the step is split into micro-batches.
        """
        self.model.train()
        self.optimizer.zero_grad()
        masked, loss = max(1, len(batch.labels)), torch.zeros((), device=self.device)
        for number, part in enumerate(self._parts(batch)):
            torch.manual_seed(key(DROPOUT, self.recipe.training.seed, step, number, 0) >> 1)
            part_loss = self._predict(part)[0].sum() / masked
            self.scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        return loss, self._update(step)

    def _update(self, step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.recipe.optimizer.learning_rate, self.recipe.schedule)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.max_gradient_norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.halted = torch.maximum(self.halted, (~torch.isfinite(norm)).float())
            self.optimizer.found_inf = self.halted  # type: ignore[attr-defined]
            self.optimizer.step()
        return norm

    @torch.no_grad()
    def evaluate(self, split: Split, masking: Masking) -> Evaluation:
        """Masked prediction on the first samples of `split`, with masks that no other setting changes."""
        self.model.eval()
        samples = np.arange(min(len(split), self.recipe.evaluation.samples), dtype=np.uint64)
        size = micro_batch_size(self.recipe, self.device)
        losses, counts, correct = np.zeros(len(samples)), np.zeros(len(samples)), 0
        for start in range(0, len(samples), size):
            now = samples[start : start + size]
            keys = (EVALUATION_MASKS, self.recipe.evaluation.mask_seed)
            part = masking(split.rows(now), now, np.zeros_like(now), keys)
            part_losses, logits_MV, labels = self._predict(part)
            owners = part.positions // part.input_ids.shape[1]
            losses[start : start + size] = np.bincount(owners, part_losses.double().cpu().numpy(), len(now))
            counts[start : start + size] = np.bincount(owners, minlength=len(now))
            correct += int((logits_MV.argmax(-1) == labels).sum())
        return _evaluation(losses, counts, correct)

    def _predict(self, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Negative log-likelihoods (M,), logits (M, V) and labels (M,), at the masked positions alone."""
        input_ids_BL, positions, labels = (
            torch.from_numpy(array).to(self.device, non_blocking=True)
            for array in (part.input_ids, part.positions, part.labels)
        )
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            logits_MV = self.model(input_ids=input_ids_BL, masked_positions=positions).logits
        return F.cross_entropy(logits_MV.float(), labels, reduction="none"), logits_MV, labels

    def _parts(self, batch: Batch) -> list[Batch]:
        size = micro_batch_size(self.recipe, self.device)
        return [batch.part(start, start + size) for start in range(0, len(batch.input_ids), size)]


def micro_batch_size(recipe: Recipe, device: torch.device) -> int:
    """Samples a forward pass: as set, else what an ordinary machine holds."""
    chosen = recipe.runtime.micro_batch_size or (8 if device.type == "cpu" else 64)
    return min(chosen, recipe.training.batch_size)


def _evaluation(losses: np.ndarray, counts: np.ndarray, correct: int) -> Evaluation:
    total = max(1.0, counts.sum())
    loss = losses.sum() / total
    # The variance of a ratio of two sums over samples, by linearisation (Cochran, 1977, section 6.3).
    residuals = losses - loss * counts
    draws = len(losses)
    variance = (residuals**2).sum() * draws / max(1, draws - 1) / total**2
    return Evaluation(float(loss), float(np.sqrt(variance)), correct / total)
