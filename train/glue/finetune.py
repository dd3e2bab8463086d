"""Fine-tuning one checkpoint on one task from one seed, and its predictions on the validation sets.

Everything random is a function of its place: the head of (seed, name), the order of (seed, epoch), dropout of
(seed, step, group). So a cell gives the same scores on the same machine whatever ran before it.
"""

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from durable.failpoints import failpoint
from train.device import repeatable, seed_dropout, sent
from train.errors import TrainError
from train.glue.checkpoint import Subject
from train.glue.encode import (
    Encoded,
    EncodedTask,
    batches_by_tokens,
    groups_of_similar_length,
    padded,
    with_used_tokens_only,
)
from train.glue.loading import load_classifier
from train.glue.protocol import FineTuning, Protocol
from train.sections import clipped_to

ORDER, DROPOUT = 1, 2
"""What a random number is for: part of every key, so that no two uses share a stream."""
CPU_OVERHEAD_TOKENS = 48
"""What one more pass through the model costs on a CPU, in tokens.

For BERT-small on one core 24 to 96 cost within 3 % of each other; a single group costs 18 % more on CoLA, 22 % more
on MRPC and 57 % more on RTE.
"""
EVALUATION_TOKENS = {"cpu": 4_096, "cuda": 65_536}
"""Padded tokens of an evaluation batch."""

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Finetuned:
    """What is left of a fine-tuned model: its outputs on the validation sets."""

    logits: dict[str, Logits]
    """By validation split; shape (examples, labels), labels 1 for a regression."""
    extra: dict[str, Logits]
    """The same for what else was to be predicted."""
    training_loss: float
    """Mean over the last epoch."""
    training_seconds: float
    """Of a stack, its share."""
    evaluation_seconds: float
    device: str
    seeds_together: tuple[int, ...]
    """Seeds that were trained in one stack, this one among them."""

    def sha256(self) -> str:
        """Of the validation logits as little-endian float32, split by split."""
        digest = hashlib.sha256()
        for logits in self.logits.values():
            digest.update(np.ascontiguousarray(logits, "<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Candidate:
    """A seed of a checkpoint, and what is wanted of it beside its predictions on the validation sets."""

    subject: Subject
    seed: int
    extra: Mapping[str, Encoded] = field(default_factory=dict)
    """Splits that are predicted too, which changes nothing else."""
    keep: Callable[[Any], None] | None = None
    """Gets the fine-tuned model, unless it diverged."""


@dataclass(frozen=True)
class Trained:
    """A model at the end of its training, cut down to the tokens of its task."""

    model: Any
    task: EncodedTask
    """Renumbered as the model is."""
    put_back: Callable[[], None]
    """Gives the model all its tokens again."""
    loss: float
    seconds: float
    seeds: tuple[int, ...]
    """That were trained together."""


class StoppedError(Exception):
    """Fine-tuning was asked to stop; nothing of it is kept."""


Step = Callable[[int], None]
"""Called after each step with its number; raises StoppedError to end."""

Rows = npt.NDArray[np.int64]
Losses = Callable[[Any, Encoded, Rows, FineTuning], Tensor]
"""The sum of the losses of some rows, given the model, their split and the protocol."""


def steps_of(rows: int, protocol: FineTuning) -> int:
    """Optimizer steps of a training set of so many rows."""
    return protocol.epochs * math.ceil(rows / protocol.batch_size)


def finetune(
    subject: Subject,
    task: EncodedTask,
    protocol: Protocol,
    seed: int,
    device: torch.device,
    on_step: Step,
    extra: Mapping[str, Encoded] = MappingProxyType({}),
    keep: Callable[[Any], None] | None = None,
) -> Finetuned:
    """Fine-tune on `task` and predict its validation splits, then those of `extra`, which change nothing else.

    `keep` gets the fine-tuned model, unless it diverged. Raises TrainError if the loss is no number in the end.
    """
    failpoint("finetune.begin")
    num_labels = len(task.task.classes) or 1
    candidate = Candidate(subject, seed, extra, keep)
    with repeatable(device, tf32=protocol.tf32):
        model = load_classifier(subject, num_labels, seed)
        task, put_back = with_used_tokens_only(model, task)
        model.to(device)
        started = time.perf_counter()
        loss = train(model, task.train, protocol, seed, on_step)
        trained = Trained(model, task, put_back, loss, time.perf_counter() - started, (seed,))
        return judge(trained, candidate, protocol)


def judge(trained: Trained, candidate: Candidate, protocol: Protocol) -> Finetuned:
    """The predictions of a trained model, which is kept if it is to be. Raises TrainError if the training diverged."""
    model, task = trained.model, trained.task
    started = time.perf_counter()
    logits = {name: predict(model, task.splits[name], protocol) for name in task.task.validation_splits}
    seconds = time.perf_counter() - started
    trained.put_back()
    more = {name: predict(model, split, protocol) for name, split in candidate.extra.items()}
    if not (math.isfinite(trained.loss) and all(np.isfinite(values).all() for values in logits.values())):
        who = f"{candidate.subject.name}, {task.task.name}, seed {candidate.seed}"
        raise TrainError(f"{who}: the training diverged, its loss is no number")
    if candidate.keep is not None:
        candidate.keep(model)
    hardware = hardware_of(model.device)
    return Finetuned(logits, more, trained.loss, trained.seconds, seconds, hardware, trained.seeds)


def hardware_of(device: torch.device) -> str:
    """What a cell's record calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def sentence_losses(model: Any, split: Encoded, rows: Rows, protocol: FineTuning) -> Tensor:
    """Cross-entropy of the classes, or the squared error where the label is a number."""
    labels = sent(split.labels[rows], model.device)
    logits = _logits(model, padded(split, rows, model.device), protocol)
    if logits.shape[1] == 1:
        return F.mse_loss(logits[:, 0], labels, reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum")


def train(
    model: Any, split: Encoded, protocol: FineTuning, seed: int, on_step: Step, losses: Losses = sentence_losses
) -> float:
    """Train to the end; the mean loss over the last epoch."""
    total = torch.zeros((), device=model.device)
    for step, (epoch, loss) in enumerate(training_steps(model, split, protocol, seed, losses), start=1):
        if epoch == protocol.epochs - 1:
            total += loss
        on_step(step)
    return float(total) / len(split)


def training_steps(
    model: Any, split: Encoded, protocol: FineTuning, seed: int, losses: Losses = sentence_losses
) -> Iterator[tuple[int, Tensor]]:
    """Train, one step each time the iterator is asked; yields the epoch and the sum of the batch's losses."""
    groups = parameter_groups(model, protocol.weight_decay)
    optimizer, schedule = optimizer_of(groups, protocol, steps_of(len(split), protocol))
    model.train()
    step = 0
    for epoch in range(protocol.epochs):
        for rows in epoch_batches(len(split), protocol.batch_size, seed, epoch):
            loss = _backward(model, split, rows, protocol, (seed, step), losses)
            nn.utils.clip_grad_norm_(model.parameters(), clipped_to(protocol.max_gradient_norm))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            yield epoch, loss * len(rows)


def optimizer_of(
    groups: list[dict[str, Any]], protocol: FineTuning, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The protocol's AdamW over groups of parameters, and its learning rate over so many steps."""
    optimizer = torch.optim.AdamW(
        groups,
        lr=protocol.learning_rate,
        betas=(protocol.adam_beta1, protocol.adam_beta2),
        eps=protocol.adam_epsilon,
        fused=True,
    )
    return optimizer, get_linear_schedule_with_warmup(optimizer, math.ceil(protocol.warmup_ratio * steps), steps)


def epoch_batches(examples: int, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """The batches of an epoch: a permutation drawn from (seed, epoch), cut; the last holds what is left."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((ORDER, seed, epoch)))).permutation(examples)
    return [order[first : first + batch_size] for first in range(0, examples, batch_size)]


def _backward(
    model: Any, split: Encoded, rows: Rows, protocol: FineTuning, place: tuple[int, int], losses: Losses
) -> Tensor:
    """Add the gradients of the batch's mean loss; returns that loss, detached."""
    lengths = split.lengths[rows]
    # On a GPU a batch of 16 is bound by kernel launches, not by padding.
    on_cpu = model.device.type == "cpu"
    groups = groups_of_similar_length(lengths.tolist(), CPU_OVERHEAD_TOKENS) if on_cpu else [np.arange(len(rows))]
    total = torch.zeros((), device=model.device)
    for number, group in enumerate(groups):
        seed_dropout(model.device, dropout_key(*place, number))
        loss = losses(model, split, rows[group], protocol) / len(rows)
        loss.backward()
        total += loss.detach()
    return total


@torch.no_grad()
def predict(model: Any, split: Encoded, protocol: FineTuning) -> Logits:
    """Logits of every example, without dropout; shape (examples, labels)."""
    model.eval()
    logits = np.empty((len(split), model.config.num_labels), np.float32)
    batches = batches_by_tokens(split.lengths, EVALUATION_TOKENS[model.device.type])
    found = [_logits(model, padded(split, rows, model.device), protocol) for rows in batches]
    # Read once all are queued: every read waits for the device.
    for rows, of_rows in zip(batches, found, strict=True):
        logits[rows] = of_rows.cpu().numpy()
    return logits


def _logits(model: Any, inputs: dict[str, Tensor], protocol: FineTuning) -> Tensor:
    with autocast(model.device, protocol):
        return model(**inputs).logits.float()


def autocast(device: torch.device, protocol: FineTuning) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in the protocol's precision."""
    if protocol.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and LayerNorm are not decayed."""
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_exempt = isinstance(module, nn.LayerNorm) or name == "bias"
            (exempt if is_exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def dropout_key(*place: object) -> int:
    """What the dropout of one pass through the model is drawn from."""
    digest = hashlib.blake2b(repr((DROPOUT, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
