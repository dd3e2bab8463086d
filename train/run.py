"""One invocation on a run folder: steps, evaluations, checkpoints and the rows they leave behind.

At the end of a step its row is written, then an evaluation if one is due, then a checkpoint if one is due. So the
metrics on disk always reach at least as far as the newest checkpoint, and resuming cuts them back to it.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from durable.errors import with_hint
from durable.failpoints import failpoint
from durable.progress import ProgressCallback
from durable.signals import EXIT_DONE, EXIT_UNFINISHED, StopRequest
from train.checkpoint import Checkpoint, load_optimizer, load_weights, prune_checkpoints, save_checkpoint
from train.corpus import Corpus
from train.data import Batch, Masking, TrainingOrder
from train.errors import TrainError
from train.loop import Trainer, TrainingBatches
from train.measures import attention_measures
from train.metrics import MetricsLog, read_metrics
from train.optimizer import learning_rate
from train.preflight import Preflight
from train.recipe import Recipe

SECONDS_BETWEEN_ROWS = 1.0
"""Losses stay on the device for so long before they are read: reading waits for the device."""
STEPS_BETWEEN_AGREEMENTS: Mapping[str, int] = {"cpu": 1, "cuda": 10}
"""How often ranks agree on stopping, saving and reading losses: asking the others waits for the device too."""


Notice = Callable[[str], None]
"""Told one line about anything unusual."""


@dataclass(frozen=True)
class Outcome:
    """How far a run has come."""

    run: Path
    step: int
    finished: bool
    exit_code: int
    """0 finished, 75 saved but not finished, 130 the same after Ctrl-C."""
    first_evaluation_loss: float
    last_evaluation_loss: float
    first_rank: bool = True
    """Whether this process is the one to tell the user."""


@dataclass(frozen=True)
class Stop:
    """When to save and stop before the last step."""

    after_step: int | None = None
    after_minutes: float | None = None
    """Of this invocation."""


class Run:
    """A trainer and the folder that it fills; only the first rank writes."""

    def __init__(
        self, out: Path, corpus: Corpus, trainer: Trainer, costs: Preflight, checkpoint: Checkpoint | None
    ) -> None:
        self.out, self.corpus, self.trainer, self.costs = out, corpus, trainer, costs
        self.recipe, self.ranks = trainer.recipe, trainer.ranks
        self.step = 0
        if checkpoint is not None:
            self.step = checkpoint.step
            load_weights(trainer.model, checkpoint.folder)
            load_optimizer(trainer.model, trainer.optimizer, checkpoint.folder)
            trainer.scaler.load_state_dict(checkpoint.scaler)
        self.masking = Masking(**self.recipe.masking.model_dump(), vocabulary=corpus.vocabulary)
        order = TrainingOrder(len(corpus.train), self.recipe.training.seed)
        self.batches = TrainingBatches(corpus.train, order, self.masking, self.recipe.training.batch_size)
        self.ahead: Future[Batch] | None = None
        self.rows = PendingRows(self.recipe)
        self.started = self.saved_at = time.monotonic()

    def train(
        self, metrics: MetricsLog | None, request: StopRequest, stop: Stop, progress: ProgressCallback
    ) -> Outcome:
        """Take steps until the last one or until told to stop. Only the first rank has metrics to write."""
        self.metrics, self.progress = metrics, progress
        with ThreadPoolExecutor(1, "batches") as self.maker:
            finished = self._train(request, stop)
        return self._outcome(finished, request)

    def _train(self, request: StopRequest, stop: Stop) -> bool:
        last = self.recipe.schedule.max_steps
        if self.step == 0:
            self._evaluate()
        saved, stopping = self.step, False
        self.rows.start()
        while self.step < last and not stopping and not (stop.after_step and self.step >= stop.after_step):
            self._take_step()
            stopping, saving = self._agree(request, stop)
            if self.step % self.recipe.evaluation.every == 0 or self.step == last:
                self._evaluate()
            if saving or self.step % self.recipe.checkpoint.every == 0 or self.step == last:
                self._save()
                saved = self.step
        if self.step > saved:
            self._save()
        return self.step == last

    def _take_step(self) -> None:
        failpoint("pretrain.step")
        self.step += 1
        try:
            self.rows.add(self.step, *self.trainer.step(self.step, self._next_batch()))
        except torch.OutOfMemoryError:
            size = self.trainer.predictor.micro_batch_size
            raise with_hint(
                TrainError(
                    f"step {self.step}: {self.trainer.device} has not the memory for micro-batches of {size} samples"
                ),
                f"--set runtime.micro_batch_size={max(1, size // 2)}, which changes rounding and dropout alone",
            ) from None

    def _next_batch(self) -> Batch:
        """This step's batch, made while the step before was running; and have the next one made."""
        ready = self.ahead.result() if self.ahead is not None else self.batches(self.step)
        self.ahead = self.maker.submit(self.batches, self.step + 1)
        return ready

    def _agree(self, request: StopRequest, stop: Stop) -> tuple[bool, bool]:
        """Whether to stop, and whether to save by the clock; reads losses if that is due. The same on all ranks."""
        if self.ranks.count > 1 and self.step % STEPS_BETWEEN_AGREEMENTS[self.trainer.device.type]:
            return False, False
        now = time.monotonic()
        late = stop.after_minutes is not None and now - self.started >= 60 * stop.after_minutes
        old = now - self.saved_at >= 60 * self.recipe.checkpoint.minutes
        wishes = torch.tensor([request.requested or late, old, self.rows.due], dtype=torch.float64)
        stopping, saving, writing = (self.ranks.total(wishes, self.trainer.device) > 0).tolist()
        if writing:
            self._write_rows()
        return stopping, saving

    def _write_rows(self) -> None:
        rows = self.rows.take(self.trainer)
        for row in rows:
            if not math.isfinite(row["loss"]) or not math.isfinite(row["gradient_norm"] or 0.0):
                raise self._not_finite(row)
            self._write([row])
        if rows:
            rate = rows[-1]["tokens_per_second"]
            utilisation = rate * self.costs.flops_per_token / self.costs.matrix_flops_per_second
            facts = {"loss": rows[-1]["loss"], "tokens/s": rate, "MFU": utilisation / self.ranks.count}
            self.progress(self.step, self.recipe.schedule.max_steps, facts)

    def _evaluate(self) -> None:
        self._write_rows()
        settings = self.recipe.evaluation
        found = self.trainer.predictor.evaluate(self.corpus.validation, self.masking, settings, self.ranks)
        place = {"step": self.step, "tokens": self.rows.tokens(self.step)}
        row = {
            "kind": "evaluation",
            **place,
            "evaluation_loss": found.loss,
            "evaluation_standard_error": found.standard_error,
            "evaluation_accuracy": found.accuracy,
        }
        self._write([row])
        if self.ranks.first and settings.attention_samples:
            measures = attention_measures(self.trainer.model, self.corpus.validation, settings.attention_samples)
            self._write([{"kind": "attention", **place, **measures}])
        self.progress(self.step, self.recipe.schedule.max_steps, {"evaluation loss": found.loss})
        self.rows.start()

    def _save(self) -> None:
        self._write_rows()
        if self.metrics is not None:
            self.metrics.sync()
            trainer, tokenizer = self.trainer, self.corpus.tokenizer
            scaler = trainer.scaler.state_dict()
            save_checkpoint(self.out, self.step, trainer.model, trainer.optimizer, tokenizer=tokenizer, scaler=scaler)
            if self.recipe.checkpoint.keep == "recent":
                prune_checkpoints(self.out)
        self.ranks.wait()
        self.saved_at = time.monotonic()
        self.rows.start()

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self.metrics is not None:
            self.metrics.write(rows)

    def _outcome(self, finished: bool, request: StopRequest) -> Outcome:
        unfinished = request.exit_code if request.requested else EXIT_UNFINISHED
        losses = [row["evaluation_loss"] for row in read_metrics(self.out) if row["kind"] == "evaluation"]
        code = EXIT_DONE if finished else unfinished
        return Outcome(self.out, self.step, finished, code, losses[0], losses[-1], self.ranks.first)

    def _not_finite(self, row: Mapping[str, Any]) -> TrainError:
        samples, epochs = self.batches.samples(row["step"])
        return with_hint(
            TrainError(
                f"step {row['step']}: loss {row['loss']}, gradient norm {row['gradient_norm']}; the optimizer has not "
                f"stepped. Samples {samples.tolist()} of epochs {sorted(set(epochs.tolist()))}"
            ),
            "the newest checkpoint is untouched; lower optimizer.learning_rate in a new --out, or look at the samples",
        )


@dataclass
class PendingRows:
    """Rows of metrics.jsonl whose numbers are still on the device."""

    recipe: Recipe
    pending: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    since: float = 0.0

    def start(self) -> None:
        """Measure the rate of the steps to come from now on."""
        self.since = time.perf_counter()

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        self.pending.append((step, loss, norm))

    @property
    def due(self) -> bool:
        return time.perf_counter() - self.since >= SECONDS_BETWEEN_ROWS

    def take(self, trainer: Trainer) -> list[dict[str, Any]]:
        """The rows since the last call, read from the device; the rate is the mean over them."""
        if not self.pending:
            return []
        losses = trainer.ranks.total(torch.stack([loss for _, loss, _ in self.pending]), trainer.device).tolist()
        norms = torch.stack([norm for _, _, norm in self.pending]).tolist()
        rate = len(losses) * self.tokens(1) / (time.perf_counter() - self.since)
        rows = [
            self._row(step, loss, norm, rate)
            for (step, _, _), loss, norm in zip(self.pending, losses, norms, strict=True)
        ]
        self.pending.clear()
        self.start()
        return rows

    def tokens(self, step: int) -> int:
        """Tokens seen by the end of `step`."""
        return step * self.recipe.training.batch_size * self.recipe.data.sequence_length

    def _row(self, step: int, loss: float, norm: float, rate: float) -> dict[str, Any]:
        # In fp16 an infinite norm is the loss scale being found too large: the step is left out, and no accident.
        skipped = self.recipe.training.precision == "fp16" and not math.isfinite(norm)
        return {
            "kind": "train",
            "step": step,
            "tokens": self.tokens(step),
            "loss": loss,
            "gradient_norm": None if skipped else norm,
            "learning_rate": learning_rate(step, self.recipe.optimizer.learning_rate, self.recipe.schedule),
            "tokens_per_second": round(rate, 1),
        }
