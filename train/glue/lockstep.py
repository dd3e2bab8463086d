"""Fine-tuning several seeds of one checkpoint on one task in lock-step: each pass computes a step of every seed.

On a GPU a step of a small model is bound by the launches of its kernels, and a stack launches about as many as one.
Every seed has its own head, order of examples, gradient norm and dropout, so that only two things differ from
separate runs: matrix products round otherwise, and dropout is drawn from (seeds, step) instead of (seed, step).

Shape suffixes: S seeds, B examples, L token positions, C classes, P parameters.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from durable.failpoints import failpoint
from symbert.attention import eager_attention
from train.device import repeatable, seed_dropout, sent
from train.errors import TrainError
from train.glue.encode import Encoded, EncodedTask, padded, with_used_tokens_only
from train.glue.finetune import (
    Candidate,
    Finetuned,
    Rows,
    Step,
    Trained,
    autocast,
    dropout_key,
    epoch_batches,
    judge,
    optimizer_of,
    parameter_groups,
    steps_of,
)
from train.glue.loading import load_classifier
from train.glue.protocol import FineTuning, Protocol
from train.sections import clipped_to

STACKED = "stacked"


def finetune_together(
    candidates: Sequence[Candidate], task: EncodedTask, protocol: Protocol, device: torch.device, on_step: Step
) -> list[Finetuned | TrainError]:
    """What `finetune` returns or raises for each candidate; all are seeds of one configuration.

    `on_step` hears of a step once all have made it.
    """
    failpoint("finetune.together")
    seeds = tuple(candidate.seed for candidate in candidates)
    results: list[Finetuned | TrainError] = []
    with repeatable(device, tf32=protocol.tf32):
        models = [load_classifier(each.subject, len(task.task.classes) or 1, each.seed) for each in candidates]
        # The tokens of the task are the same for all, and so are the renumbered tasks.
        cut = [with_used_tokens_only(model, task) for model in models]
        task = cut[0][0]
        started = time.perf_counter()
        losses = train_together(models, task.train, protocol, seeds, device, on_step)
        seconds = (time.perf_counter() - started) / len(seeds)
        for candidate, model, (_, put_back), loss in zip(candidates, models, cut, losses, strict=True):
            trained = Trained(model.to(device), task, put_back, loss, seconds, seeds)
            try:
                results.append(judge(trained, candidate, protocol))
            except TrainError as error:
                results.append(error)
            model.cpu()
    return results


def train_together(
    models: Sequence[Any],
    split: Encoded,
    protocol: FineTuning,
    seeds: Sequence[int],
    device: torch.device,
    on_step: Step,
) -> list[float]:
    """Train models that are on the CPU, to the end and in place; the mean loss of each over the last epoch."""
    stack = Stack(models, device)
    total_S = torch.zeros(len(models), device=device)
    for step, (epoch, loss_S) in enumerate(stacked_steps(stack, split, protocol, seeds), start=1):
        if epoch == protocol.epochs - 1:
            total_S += loss_S
        on_step(step)
    stack.unstack()
    return [total / len(split) for total in total_S.tolist()]


def stacked_steps(
    stack: "Stack", split: Encoded, protocol: FineTuning, seeds: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Train, one step of all each time the iterator is asked; yields the epoch and the sums of the batches' losses."""
    optimizer, schedule = optimizer_of(
        stack.parameter_groups(protocol.weight_decay), protocol, steps_of(len(split), protocol)
    )
    step = 0
    for epoch in range(protocol.epochs):
        orders = [epoch_batches(len(split), protocol.batch_size, seed, epoch) for seed in seeds]
        for batches in zip(*orders, strict=True):
            rows_SB = np.stack(batches)
            seed_dropout(stack.device, dropout_key(tuple(seeds), step))
            loss_S = stack.losses(split, rows_SB, protocol)
            loss_S.sum().backward()
            stack.clip_gradients(clipped_to(protocol.max_gradient_norm))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            yield epoch, loss_S.detach() * rows_SB.shape[1]


class Stack:
    """Models of one shape as one: every parameter has a leading dimension S."""

    def __init__(self, models: Sequence[Any], device: torch.device) -> None:
        self.device = device
        self._models = models
        for model in models:
            model.train()
        parameters, buffers = stack_module_state(list(models))
        self.parameters = {
            name: values.detach().to(device).requires_grad_(values.requires_grad) for name, values in parameters.items()
        }
        self._buffers = {name: values.to(device) for name, values in buffers.items()}
        # It lends its code alone: whatever it computes with is given in every call.
        shell = copy.deepcopy(models[0]).to("meta")
        shell.set_attn_implementation(STACKED)
        self._padding = {
            f"{name}.weight": module.padding_idx
            for name, module in shell.named_modules()
            if isinstance(module, nn.Embedding) and module.padding_idx is not None
        }

        # To look for parameters of two names in every call took up to a tenth of the time outside of kernels.
        tied = len(list(shell.named_parameters(remove_duplicate=False))) > len(self.parameters)

        def logits(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: dict[str, Tensor]) -> Any:
            return functional_call(shell, (dict(parameters), dict(buffers)), (), inputs, tie_weights=tied).logits

        self._logits = torch.vmap(logits, randomness="different")

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Those of a single model, stacked."""
        names = {id(parameter): name for name, parameter in self._models[0].named_parameters()}
        groups = parameter_groups(self._models[0], weight_decay)
        return [{**group, "params": [self.parameters[names[id(one)]] for one in group["params"]]} for group in groups]

    def losses(self, split: Encoded, rows_SB: Rows, protocol: FineTuning) -> Tensor:
        """The mean loss of each seed's batch, shape (S,); all are padded to the longest example of any."""
        inputs = padded(split, rows_SB.ravel(), self.device)
        stacked = {name: values.unflatten(0, rows_SB.shape) for name, values in inputs.items()}
        with autocast(self.device, protocol):
            logits_SBC = self._logits(self.parameters, self._buffers, stacked).float()
        labels_SB = sent(split.labels[rows_SB], self.device)
        if logits_SBC.shape[-1] == 1:
            losses_SB = F.mse_loss(logits_SBC[..., 0], labels_SB, reduction="none")
        else:
            # In the form for matrices: a GPU's kernel for more dimensions is not deterministic.
            losses_SB = F.cross_entropy(logits_SBC.flatten(0, 1), labels_SB.flatten(), reduction="none")
            losses_SB = losses_SB.view_as(labels_SB)
        return losses_SB.sum(1) / rows_SB.shape[1]

    @torch.no_grad()
    def clip_gradients(self, norm: float) -> None:
        """Scale the gradients of each seed down to `norm`, as clip_grad_norm_ does for one model; inf leaves them.

        In one pass over the parameters, of which none is read by the host: a GPU's queue stays full.
        """
        for name, row in self._padding.items():
            # vmap numbers the rows of all tables on, and so knows the padding of the first alone.
            gradient = self.parameters[name].grad
            if gradient is not None:
                gradient[:, row].zero_()
        gradients = [values.grad for values in self.parameters.values() if values.grad is not None]
        if not gradients or math.isinf(norm):
            return
        seeds = len(self._models)
        norms_PS = [torch.linalg.vector_norm(gradient.reshape(seeds, -1), dim=1) for gradient in gradients]
        total_S = torch.linalg.vector_norm(torch.stack(norms_PS), dim=0)
        factor_S = torch.clamp(norm / (total_S + 1e-6), max=1.0)
        for gradient in gradients:
            gradient.mul_(factor_S.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def unstack(self) -> None:
        """Give every model its own parameters."""
        for place, model in enumerate(self._models):
            for name, parameter in model.named_parameters():
                parameter.copy_(self.parameters[name][place])


def visible_keys(*_: object, attention_mask: Tensor | None = None, **__: object) -> Tensor | None:
    """Which keys may be seen, as booleans (B, 1, 1, L), in transformers' mask signature.

    Its own functions look at the values first, to do without a mask where all may be seen; vmap forbids that.
    """
    return None if attention_mask is None else attention_mask.bool()[:, None, None, :]


# Step by step: for each of these kernels vmap has a rule on every device, and dropout draws apart for every seed.
AttentionInterface.register(STACKED, eager_attention)
AttentionMaskInterface.register(STACKED, visible_keys)
