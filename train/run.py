"""One invocation on a run folder: steps, evaluations, checkpoints and the rows they leave behind.

At the end of a step its row is written, then an evaluation if one is due, then a checkpoint if one is due. So the
metrics on disk always reach at least as far as the newest checkpoint, and resuming cuts them back to it.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch

from durable.errors import with_hint
from durable.failpoints import failpoint
from durable.progress import ProgressCallback
from durable.signals import EXIT_DONE, EXIT_UNFINISHED, StopRequest
from train.checkpoint import Checkpoint, load_optimizer, load_weights, prune_checkpoints, save_checkpoint
from train.corpus import Corpus
from train.data import Batch, Masking, TrainingOrder
from train.device import is_lack_of_memory
from train.errors import TrainError
from train.loop import Trainer, TrainingBatches
from train.measures import attention_measures
from train.memory import give_back_memory, lack_of_memory
from train.metrics import MetricsLog, read_metrics
from train.preflight import Preflight
from train.rows import PendingRows

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
    minutes: float
    """Used by all invocations up to this step."""
    first_evaluation_loss: float
    last_evaluation_loss: float
    last_evaluation_accuracy: float
    tokens_per_second: float | None
    """Median over this invocation's steps; None if it took none."""
    model_flops_utilisation: float | None
    """Of that rate, against the matrix product measured at its start, on every rank."""
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
        self.step, self.minutes_before = 0, 0.0
        if checkpoint is not None:
            self.step, self.minutes_before = checkpoint.step, checkpoint.minutes
            load_weights(trainer.model, checkpoint.folder)
            load_optimizer(trainer.model, trainer.optimizer, checkpoint.folder)
            trainer.scaler.load_state_dict(checkpoint.scaler)
        self.masking = Masking(**self.recipe.masking.model_dump(), vocabulary=corpus.vocabulary)
        order = TrainingOrder(len(corpus.train), self.recipe.training.seed)
        self.batches = TrainingBatches(corpus.train, order, self.masking, self.recipe.training.batch_size)
        self.ahead: Future[Batch] | None = None
        self.rows = PendingRows(self.recipe)
        self.first_step = self.step + 1
        self.started = self.saved_at = monotonic()
        self.minutes = self.minutes_before
        self.budget_used = self._over_budget()

    def fit_into_memory(self, may_halve: bool, notice: Notice) -> None:
        """Halve the micro-batch until every rank has the memory to train on it; `notice` is told of each time.

        Raises TrainError if it must not be halved, or is 1.
        """
        if self.finished:
            return
        batch = self.batches(self.step + 1)
        while self.ranks.any(not self.trainer.has_memory(batch), self.trainer.device):
            size = self.trainer.micro_batch_size
            if size == 1 or not may_halve:
                raise self._lack_of_memory(self.step + 1)
            self.trainer.halve_micro_batch()
            half = self.trainer.micro_batch_size
            notice(f"too little memory for micro-batches of {size} samples: they have {half} from here on")
            give_back_memory()
        self.trainer.settle_exchange(batch)
        self.recipe = self.trainer.recipe

    def train(
        self, metrics: MetricsLog | None, request: StopRequest, stop: Stop, progress: ProgressCallback
    ) -> Outcome:
        """Take steps until the last one or until told to stop. Only the first rank has metrics to write."""
        self.metrics, self.progress = metrics, progress
        with ThreadPoolExecutor(1, "batches") as self.maker:
            finished = self._train(request, stop)
        return self._outcome(finished, request)

    def _train(self, request: StopRequest, stop: Stop) -> bool:
        if self.step == 0:
            self._evaluate()
        saved, stopping = self.step, False
        self.rows.start()
        while not self.finished and not stopping and not (stop.after_step and self.step >= stop.after_step):
            self._take_step()
            stopping, saving = self._agree(request, stop)
            if self.step % self.recipe.evaluation.every == 0 or self.finished:
                self._evaluate()
            if saving or self.step % self.recipe.checkpoint.every == 0 or self.finished:
                self._save()
                saved = self.step
        if self.step > saved:
            self._save()
        return self.finished

    @property
    def finished(self) -> bool:
        """Whether the schedule is at its end, or the compute budget is used."""
        return self.step == self.recipe.schedule.max_steps or self.budget_used

    def _over_budget(self) -> bool:
        budget = self.recipe.schedule.max_minutes
        return budget is not None and self.minutes >= budget

    def _take_step(self) -> None:
        failpoint("pretrain.step")
        self.step += 1
        batch = self._next_batch()
        with self._enough_memory():
            self.rows.add(self.step, batch.fingerprint(), *self.trainer.step(self.step, batch))

    @contextlib.contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Turn a lack of memory into a refusal that proposes a micro-batch."""
        try:
            yield
        except RuntimeError as error:
            if not is_lack_of_memory(error):
                raise
            raise self._lack_of_memory(self.step) from None

    def _lack_of_memory(self, step: int) -> TrainError:
        return lack_of_memory(step, self.trainer.device, self.trainer.micro_batch_size)

    def _next_batch(self) -> Batch:
        """This step's batch, made while the step before was running; and have the next one made."""
        ready = self.ahead.result() if self.ahead is not None else self.batches(self.step)
        self.ahead = self.maker.submit(self.batches, self.step + 1)
        return ready

    def _agree(self, request: StopRequest, stop: Stop) -> tuple[bool, bool]:
        """Whether to stop, and whether to save by the clock; reads losses if that is due. The same on all ranks.

        The budget is by the first rank's clock, which is the one that checkpoints record.
        """
        if self.ranks.count > 1 and self.step % STEPS_BETWEEN_AGREEMENTS[self.trainer.device.type]:
            return False, False
        now = monotonic()
        late = stop.after_minutes is not None and now - self.started >= 60 * stop.after_minutes
        old = now - self.saved_at >= 60 * self.recipe.checkpoint.minutes
        self.minutes = self.minutes_before + (now - self.started) / 60
        used = self.ranks.first and self._over_budget()
        wishes = torch.tensor([request.requested or late, old, self.rows.due, used], dtype=torch.float64)
        stopping, saving, writing, self.budget_used = (self.ranks.total(wishes, self.trainer.device) > 0).tolist()
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
            facts = {"loss": rows[-1]["loss"], "tokens/s": rate, "MFU": self._utilisation(rate)}
            self.progress(self.step, self.recipe.schedule.max_steps, facts)

    def _utilisation(self, tokens_per_second: float) -> float:
        """MFU: the share of the measured matrix rate that the model's own operations take."""
        flops = tokens_per_second * self.costs.flops_per_token
        return flops / self.costs.matrix_flops_per_second / self.ranks.count

    def _evaluate(self) -> None:
        self._write_rows()
        settings = self.recipe.evaluation
        with self._enough_memory():
            found = self.trainer.predictor.evaluate(self.corpus.validation, self.masking, settings, self.ranks)
        if not math.isfinite(found.loss):
            raise with_hint(
                TrainError(f"step {self.step}: evaluation loss {found.loss}; nothing is trained from there on"),
                "lower model.initializer_range, model.attention_logit_gain or optimizer.learning_rate in a new --out",
            )
        place = {"step": self.step, "tokens": self.rows.tokens(self.step)}
        row = {
            "kind": "evaluation",
            **place,
            "minutes": round(self.minutes, 3),
            "evaluation_loss": found.loss,
            "evaluation_standard_error": found.standard_error,
            "evaluation_accuracy": found.accuracy,
        }
        self._write([row])
        if self.ranks.first and settings.attention_samples:
            measures = attention_measures(self.trainer.model, self.corpus.validation, settings.attention_samples)
            self._write([{"kind": "attention", **place, **measures}])
        self.progress(
            self.step, self.recipe.schedule.max_steps, {"evaluation loss": found.loss, "accuracy": found.accuracy}
        )
        self.rows.start()

    def _save(self) -> None:
        self._write_rows()
        if self.metrics is not None:
            self.metrics.sync()
            save_checkpoint(
                self.out,
                self.step,
                self.trainer.model,
                self.trainer.optimizer,
                tokenizer=self.corpus.tokenizer,
                scaler=self.trainer.scaler.state_dict(),
                minutes=self.minutes,
            )
            if self.recipe.checkpoint.keep == "recent":
                prune_checkpoints(self.out)
        self.ranks.wait()
        self.saved_at = monotonic()
        self.rows.start()

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self.metrics is not None:
            self.metrics.write(rows)

    def _outcome(self, finished: bool, request: StopRequest) -> Outcome:
        unfinished = request.exit_code if request.requested else EXIT_UNFINISHED
        metrics = read_metrics(self.out)
        rows = [row for row in metrics if row["kind"] == "evaluation"]
        ours = [row for row in metrics if row["kind"] == "train" and row["step"] >= self.first_step]
        rate = median(row["tokens_per_second"] for row in ours) if ours else None
        return Outcome(
            run=self.out,
            step=self.step,
            finished=finished,
            exit_code=EXIT_DONE if finished else unfinished,
            minutes=self.minutes,
            first_evaluation_loss=rows[0]["evaluation_loss"],
            last_evaluation_loss=rows[-1]["evaluation_loss"],
            last_evaluation_accuracy=rows[-1]["evaluation_accuracy"],
            tokens_per_second=rate,
            model_flops_utilisation=None if rate is None else self._utilisation(rate),
            first_rank=self.ranks.first,
        )

    def _not_finite(self, row: Mapping[str, Any]) -> TrainError:
        samples, epochs = self.batches.samples(row["step"])
        return with_hint(
            TrainError(
                f"step {row['step']}: loss {row['loss']}, gradient norm {row['gradient_norm']}; the optimizer has not "
                f"stepped. Samples {samples.tolist()} of epochs {sorted(set(epochs.tolist()))}"
            ),
            "the newest checkpoint is untouched; lower optimizer.learning_rate in a new --out, or look at the samples",
        )
