"""Pre-training: a run folder from a corpus and a recipe, that the same call resumes wherever it was stopped.

    RUN/recipe.toml, environment.json, metrics.jsonl, checkpoints/step-00001000/

At the end of a step its row is written, then an evaluation if one is due, then a checkpoint if one is due. So the
metrics on disk always reach at least as far as the newest checkpoint, and resuming cuts them back to it.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from durable.errors import with_hint
from durable.failpoints import failpoint
from durable.files import sweep_partials, write_json, write_text
from durable.locks import LOCK_NAME, folder_lock
from durable.progress import ProgressCallback, silent
from durable.settings import difference, dump_toml
from durable.signals import EXIT_DONE, EXIT_UNFINISHED, StopRequest
from symbert import SymbertForMaskedLM
from train.checkpoint import load_optimizer, load_weights, newest_valid, save_checkpoint
from train.corpus import Corpus, check_fit, open_corpus
from train.cpu import keep_freed_memory
from train.data import FIRST_WEIGHTS, Masking, TrainingOrder, key
from train.device import find_device, with_precision
from train.environment import ASSUMPTIONS, identity, invocation
from train.errors import TrainError
from train.loop import Trainer, TrainingBatches
from train.metrics import MetricsLog, read_metrics
from train.optimizer import learning_rate
from train.preflight import Preflight, preflight
from train.recipe import Recipe, symbert_config

RECIPE, ENVIRONMENT = "recipe.toml", "environment.json"
SECONDS_BETWEEN_ROWS = 1.0
"""Losses stay on the device for so long before they are read: reading waits for the device."""


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


def pretrain(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    device: str | None = None,
    stop_after_step: int | None = None,
    progress: ProgressCallback = silent,
    notice: Callable[[str], None] = print,
) -> Outcome:
    """Train a model on the corpus `data` in the run folder `out`, or go on where that run stopped.

    Signals (SIGTERM, SIGUSR1, Ctrl-C) and `stop_after_step` save a checkpoint at the next step boundary; the outcome
    says so. `progress` counts steps; `notice` is told one line about anything unusual. Raises TrainError for a corpus,
    device or run folder that does not fit; nothing has been written to `out` then.
    """
    corpus, recipe, found = _checked(data, recipe, device)
    with ExitStack() as stack:
        _refuse_other_folders(out)
        stack.enter_context(folder_lock(out))
        _refuse_other_settings(out, identity(recipe, corpus))
        sweep_partials(out)
        run = _Run(out, corpus, recipe, found, progress, notice)
        stack.enter_context(run.metrics)
        stop = stack.enter_context(StopRequest())
        return run.train(stop, stop_after_step)


def dry_run(data: Path, recipe: Recipe, *, device: str | None = None) -> Preflight:
    """What `pretrain` would cost; refuses what `pretrain` would refuse, and writes nothing."""
    return preflight(*_checked(data, recipe, device))


def _checked(data: Path, recipe: Recipe, device: str | None) -> tuple[Corpus, Recipe, torch.device]:
    found = find_device(device)
    recipe = with_precision(recipe, found)
    corpus = open_corpus(data)
    check_fit(corpus, recipe)
    return corpus, recipe, found


class _Run:
    """One invocation on a run folder that is ours."""

    def __init__(
        self,
        out: Path,
        corpus: Corpus,
        recipe: Recipe,
        device: torch.device,
        progress: ProgressCallback,
        notice: Callable[[str], None],
    ) -> None:
        self.out, self.corpus, self.recipe, self.progress = out, corpus, recipe, progress
        checkpoint = newest_valid(out, notice)
        if checkpoint is None:
            corpus.check_hashes()
        self.costs = preflight(corpus, recipe, device)
        if device.type == "cpu":
            keep_freed_memory()
        self.trainer = Trainer(first_model(recipe), recipe, device)
        self.step = 0
        if checkpoint is not None:
            self.step = checkpoint.step
            load_weights(self.trainer.model, checkpoint.folder)
            load_optimizer(self.trainer.model, self.trainer.optimizer, checkpoint.folder)
            self.trainer.scaler.load_state_dict(checkpoint.scaler)
        _record(out, corpus, recipe, self.costs, invocation(recipe, device, self.step))
        self.metrics = MetricsLog(out, None if checkpoint is None else self.step)
        masking = Masking(**recipe.masking.model_dump(), vocabulary=corpus.vocabulary)
        order = TrainingOrder(len(corpus.train), recipe.training.seed)
        self.masking = masking
        self.batches = TrainingBatches(corpus.train, order, masking, recipe.training.batch_size)
        self.rows = _PendingRows(recipe)

    def train(self, stop: StopRequest, stop_after_step: int | None) -> Outcome:
        """Take steps until the last one or until told to stop."""
        last = self.recipe.schedule.max_steps
        if self.step == 0:
            self._evaluate()
        saved = self.step
        self.rows.start()
        while self.step < last and not stop.requested and not (stop_after_step and self.step >= stop_after_step):
            self._take_step()
            if self.step % self.recipe.evaluation.every == 0 or self.step == last:
                self._evaluate()
            if self.step % self.recipe.checkpoint.every == 0 or self.step == last:
                self._save()
                saved = self.step
        if self.step > saved:
            self._save()
        return self._outcome(self.step == last, stop)

    def _take_step(self) -> None:
        failpoint("pretrain.step")
        self.step += 1
        self.rows.add(self.step, *self.trainer.step(self.step, self.batches(self.step)))
        if self.rows.due:
            self._write_rows()

    def _write_rows(self) -> None:
        rows = self.rows.take()
        for row in rows:
            if not math.isfinite(row["loss"]) or not math.isfinite(row["gradient_norm"] or 0.0):
                raise self._not_finite(row)
            self.metrics.write([row])
        if rows:
            utilisation = (
                rows[-1]["tokens_per_second"] * self.costs.flops_per_token / self.costs.matrix_flops_per_second
            )
            facts = {"loss": rows[-1]["loss"], "tokens/s": rows[-1]["tokens_per_second"], "MFU": utilisation}
            self.progress(self.step, self.recipe.schedule.max_steps, facts)

    def _evaluate(self) -> None:
        self._write_rows()
        found = self.trainer.evaluate(self.corpus.validation, self.masking)
        row = {
            "kind": "evaluation",
            "step": self.step,
            "tokens": self.rows.tokens(self.step),
            "evaluation_loss": found.loss,
            "evaluation_standard_error": found.standard_error,
            "evaluation_accuracy": found.accuracy,
        }
        self.metrics.write([row])
        self.progress(self.step, self.recipe.schedule.max_steps, {"evaluation loss": found.loss})
        self.rows.start()

    def _save(self) -> None:
        self._write_rows()
        self.metrics.sync()
        trainer, tokenizer = self.trainer, self.corpus.tokenizer
        scaler = trainer.scaler.state_dict()
        save_checkpoint(self.out, self.step, trainer.model, trainer.optimizer, tokenizer=tokenizer, scaler=scaler)
        self.rows.start()

    def _outcome(self, finished: bool, stop: StopRequest) -> Outcome:
        unfinished = stop.exit_code if stop.requested else EXIT_UNFINISHED
        losses = [row["evaluation_loss"] for row in read_metrics(self.out) if row["kind"] == "evaluation"]
        return Outcome(self.out, self.step, finished, EXIT_DONE if finished else unfinished, losses[0], losses[-1])

    def _not_finite(self, row: dict[str, Any]) -> TrainError:
        samples, epochs = self.batches.samples(row["step"])
        return with_hint(
            TrainError(
                f"step {row['step']}: loss {row['loss']}, gradient norm {row['gradient_norm']}; the optimizer has not "
                f"stepped. Samples {samples.tolist()} of epochs {sorted(set(epochs.tolist()))}"
            ),
            "the newest checkpoint is untouched; lower optimizer.learning_rate in a new --out, or look at the samples",
        )


@dataclass
class _PendingRows:
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

    def take(self) -> list[dict[str, Any]]:
        """The rows since the last call, read from the device; the rate is the mean over them."""
        if not self.pending:
            return []
        numbers = torch.stack([torch.stack((loss, norm)) for _, loss, norm in self.pending]).tolist()
        rate = len(numbers) * self.tokens(1) / (time.perf_counter() - self.since)
        rows = [
            self._row(step, loss, norm, rate) for (step, _, _), (loss, norm) in zip(self.pending, numbers, strict=True)
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


def first_model(recipe: Recipe) -> Any:
    """The untrained model; its weights depend on training.seed and [model] alone, not on the device."""
    torch.manual_seed(key(FIRST_WEIGHTS, recipe.training.seed) >> 1)
    return SymbertForMaskedLM(symbert_config(recipe.model))


def _record(out: Path, corpus: Corpus, recipe: Recipe, costs: Preflight, entry: dict[str, Any]) -> None:
    path = out / ENVIRONMENT
    earlier = json.loads(path.read_text("utf-8"))["invocations"] if path.exists() else []
    write_text(out / RECIPE, dump_toml(recipe))
    document = {
        "identity": identity(recipe, corpus),
        "data": str(corpus.folder),
        "data_manifest_sha256": corpus.manifest_hash,
        "parameters": costs.parameters,
        "flops_per_token": costs.flops_per_token,
        "unigram_entropy": costs.unigram_entropy,
        "assumptions": dict(ASSUMPTIONS),
        "invocations": [*earlier, {**entry, "matrix_flops_per_second": costs.matrix_flops_per_second}],
    }
    write_json(path, document)


def _refuse_other_folders(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise TrainError(f"{out} is a file, expected a folder for the run")
    strangers = [path.name for path in out.glob("*") if path.name not in {RECIPE, LOCK_NAME} and path.name[0] != "."]
    if strangers and not (out / ENVIRONMENT).exists():
        raise with_hint(TrainError(f"{out} holds other things ({strangers[0]}), and no run"), "give another --out")


def _refuse_other_settings(out: Path, wanted: dict[str, Any]) -> None:
    path = out / ENVIRONMENT
    if not path.exists():
        return
    try:
        recorded = json.loads(path.read_text("utf-8"))["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{path} is damaged: {error!r}") from None
    differences = difference(recorded, wanted)
    if differences:
        lines = "\n".join(f"  {line.removeprefix('recipe.')}" for line in differences)
        raise with_hint(
            TrainError(f"{out} holds a run with other settings:\n{lines}"),
            "give another --out, or the run's own settings",
        )
