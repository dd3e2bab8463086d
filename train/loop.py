"""One optimizer step: the arithmetic of pre-training, without files."""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from train.corpus import Split
from train.data import DROPOUT, TRAINING_MASKS, Batch, Masking, TrainingOrder, Words, key
from train.device import is_compiled, is_lack_of_memory, seed_dropout
from train.memory import micro_batch_size, with_size
from train.optimizer import learning_rate, make_optimizer
from train.predict import Predictor
from train.ranks import ALONE, Ranks
from train.recipe import Recipe
from train.sections import clipped_to


@dataclass(frozen=True)
class TrainingBatches:
    """The batch of each step, whoever asks for it and however often."""

    split: Split
    order: TrainingOrder
    masking: Masking
    batch_size: int

    def samples(self, step: int) -> tuple[Words, Words]:
        """The samples of step `step`, counted from 1, and their epochs."""
        return self.order.at((step - 1) * self.batch_size, step * self.batch_size)

    def __call__(self, step: int) -> Batch:
        samples, epochs = self.samples(step)
        return self.masking(self.split.rows(samples), samples, epochs, (TRAINING_MASKS, self.order.seed))


class Trainer:
    """A model, its optimizer and the arithmetic of a step, of which every rank takes its share."""

    def __init__(self, model: Any, recipe: Recipe, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.recipe, self.device, self.ranks = recipe, device, ranks
        self.predictor = Predictor(
            model,
            device,
            recipe.training.precision,
            micro_batch_size(recipe, device),
            recipe.masking.probability if is_compiled(recipe, device) else None,
        )
        self.model = self.predictor.model
        if ranks.count > 1:
            self.predictor.forward = DistributedDataParallel(self.predictor.forward)
        self.optimizer = make_optimizer(model, recipe.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.training.precision == "fp16")
        self.max_norm = clipped_to(recipe.optimizer.max_gradient_norm)
        # 1 from the first step on whose gradient is not finite: the fused optimizer then leaves the weights alone,
        # this step and every later one, without the host having to wait for the device to know.
        self.halted = torch.zeros((), device=device)

    def step(self, step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take optimizer step `step` on the whole step's batch; returns this rank's part of the loss per masked token
        and the gradient norm before clipping.

        Both stay on the device: reading them is what waits for it. The loss is a mean over all masked tokens of
        the step, so that it does not depend on how the step is split into micro-batches and ranks.
        """
        self.predictor.module.train()
        self.optimizer.zero_grad()
        masked, loss = max(1, len(batch.labels)), torch.zeros((), device=self.device)
        size, parts = self._parts(batch)
        for number, part in enumerate(parts):
            seed = key(DROPOUT, self.recipe.training.seed, step, number, self.ranks.number) >> 1
            seed_dropout(self.device, seed)
            with self._alone_until(number == len(parts) - 1):
                part_loss = self.predictor(part, size)[0].sum() / masked
                # DistributedDataParallel takes the mean of the ranks' gradients, where the sum is wanted.
                self.scaler.scale(part_loss * self.ranks.count).backward()
            loss += part_loss.detach()
        return loss, self._update(step)

    @property
    def micro_batch_size(self) -> int:
        """Samples a forward pass, on the rank with the largest share of a batch."""
        return min(self.predictor.micro_batch_size, -(-self.recipe.training.batch_size // self.ranks.count))

    def has_memory(self, batch: Batch) -> bool:
        """Whether one micro-batch of a step's batch goes forward and backward here; nothing comes of it.

        Held meanwhile is what a step holds beside it: the moments, and the gradients of the micro-batches before.
        """
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        try:
            moments = [] if self.optimizer.state else [torch.empty_like(weight) for weight in trained for _ in range(2)]
            if len(self._parts(batch)[1]) > 1:
                for parameter in trained:
                    parameter.grad = torch.zeros_like(parameter)
            self._try(batch, exchanged=False)
            del moments
        except RuntimeError as error:
            if not is_lack_of_memory(error):
                raise
            return False
        finally:
            self.optimizer.zero_grad()
        return True

    def settle_exchange(self, batch: Batch) -> None:
        """Let the ranks exchange the gradients of one micro-batch, of which nothing comes: before the first step.

        After its first exchange DistributedDataParallel lays the gradients out anew, in the order in which they came,
        and where one lies decides in which order more than two ranks add it. A resumed run, whose first exchange is
        that of a later step, would otherwise round that step in another way.
        """
        if self.ranks.count > 1:
            self._try(batch, exchanged=True)
            self.optimizer.zero_grad()

    def halve_micro_batch(self) -> None:
        """Take half as many samples a forward pass from now on; there must be more than 1."""
        size = self.micro_batch_size // 2
        self.predictor.micro_batch_size, self.recipe = size, with_size(self.recipe, size)
        if self.predictor.masking is not None:
            # Compiled for the larger one, it is of no more use; and what torch has compiled eight times, it compiles no
            # more, but computes step by step from there on.
            torch.compiler.reset()

    def release(self) -> None:
        """Let go of DistributedDataParallel, as has to be done before the ranks part; there is no step after it."""
        self.predictor.forward = self.predictor.module

    def _try(self, batch: Batch, *, exchanged: bool) -> None:
        """Take one micro-batch forward and backward."""
        size, parts = self._parts(batch)
        self.predictor.module.train()
        with self._alone_until(exchanged):
            self.scaler.scale(self.predictor(parts[0], size)[0].sum()).backward()

    def _parts(self, batch: Batch) -> tuple[int, list[Batch]]:
        """This rank's share of a batch as micro-batches, and the size that all have, but for the last perhaps."""
        share = batch.part(*self.ranks.share(len(batch.input_ids)))
        samples = len(share.input_ids)
        size = self.predictor.even_size(samples)
        return size, [share.part(start, start + size) for start in range(0, samples, size)]

    def _alone_until(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged once a step, with its last micro-batch."""
        return contextlib.nullcontext() if last or self.ranks.count == 1 else self.predictor.forward.no_sync()

    def _update(self, step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.recipe.optimizer.learning_rate, self.recipe.schedule)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.halted = torch.maximum(self.halted, (~torch.isfinite(norm)).float())
            self.optimizer.found_inf = self.halted  # type: ignore[attr-defined]
            self.optimizer.step()
        return norm
