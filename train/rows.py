"""Rows of metrics.jsonl on their way from the device to the disk."""

import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from train.loop import Trainer
from train.optimizer import learning_rate
from train.recipe import Recipe

SECONDS_BETWEEN_ROWS = 1.0
"""Losses stay on the device for so long before they are read: reading waits for the device."""


@dataclass
class PendingRows:
    """Rows of metrics.jsonl whose numbers are still on the device."""

    recipe: Recipe
    pending: list[tuple[int, str, Tensor, Tensor]] = field(default_factory=list)
    since: float = 0.0

    def start(self) -> None:
        """Measure the rate of the steps to come from now on."""
        self.since = perf_counter()

    def add(self, step: int, samples: str, loss: Tensor, norm: Tensor) -> None:
        """Loss and norm stay on the device; `samples` is the batch's fingerprint."""
        self.pending.append((step, samples, loss, norm))

    @property
    def due(self) -> bool:
        return perf_counter() - self.since >= SECONDS_BETWEEN_ROWS

    def take(self, trainer: Trainer) -> list[dict[str, Any]]:
        """The rows since the last call, read from the device; the rate is the mean over them."""
        if not self.pending:
            return []
        losses = trainer.ranks.total(torch.stack([loss for _, _, loss, _ in self.pending]), trainer.device).tolist()
        norms = torch.stack([norm for *_, norm in self.pending]).tolist()
        rate = len(losses) * self.tokens(1) / (perf_counter() - self.since)
        rows = [
            self._row(step, samples, loss, norm, rate)
            for (step, samples, _, _), loss, norm in zip(self.pending, losses, norms, strict=True)
        ]
        self.pending.clear()
        self.start()
        return rows

    def tokens(self, step: int) -> int:
        """Tokens seen by the end of `step`."""
        return step * self.recipe.training.batch_size * self.recipe.data.sequence_length

    def _row(self, step: int, samples: str, loss: float, norm: float, rate: float) -> dict[str, Any]:
        # In fp16 an infinite norm is the loss scale being found too large: the step is left out, and no accident.
        skipped = self.recipe.training.precision == "fp16" and not math.isfinite(norm)
        return {
            "kind": "train",
            "step": step,
            "tokens": self.tokens(step),
            "samples": samples,
            "loss": loss,
            "gradient_norm": None if skipped else norm,
            "learning_rate": learning_rate(step, self.recipe.optimizer.learning_rate, self.recipe.schedule),
            "tokens_per_second": round(rate, 1),
        }
