"""Fine-tuning one checkpoint on SQuAD from one seed, and its answers to the validation questions.

The loop, its order and its dropout are those of train.glue.finetune. Shape suffixes: B windows, L token positions.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForQuestionAnswering

from durable.failpoints import failpoint
from train.device import repeatable, sent
from train.errors import TrainError
from train.glue.checkpoint import Subject
from train.glue.encode import Encoded, EncodedTask, batches_by_tokens, padded, with_used_tokens_only
from train.glue.finetune import EVALUATION_TOKENS, Rows, Step, autocast, hardware_of, train
from train.glue.loading import load_with_head
from train.glue.protocol import FineTuning
from train.squad.protocol import SquadProtocol
from train.squad.read import SQUAD, Question
from train.squad.windows import Window, Windows

CLS = 0
"""Position whose start and end say that there is no answer in the window."""


@dataclass(frozen=True)
class Answered:
    """What is left of a fine-tuned model."""

    predictions: dict[str, str]
    """Answer by the question's id; empty where the model says that there is none."""
    training_loss: float
    """Mean over the last epoch."""
    training_seconds: float
    evaluation_seconds: float
    device: str

    def sha256(self) -> str:
        """Of the predictions in the order of the questions."""
        return hashlib.sha256(json.dumps(self.predictions).encode()).hexdigest()


def finetune_squad(
    subject: Subject,
    train_windows: Windows,
    validation: tuple[Sequence[Question], Windows],
    settings: tuple[SquadProtocol, str],
    seed: int,
    device: torch.device,
    on_step: Step,
) -> Answered:
    """Fine-tune on the training windows and answer the validation questions; `settings` holds the version too.

    Raises TrainError if the loss is no number in the end.
    """
    failpoint("finetune.begin")
    (protocol, version), (questions, windows) = settings, validation
    with repeatable(device, tf32=protocol.tf32):
        model = load_with_head(subject, AutoModelForQuestionAnswering, seed)
        splits = {"train": train_windows.encoded, "validation": windows.encoded}
        task, _ = with_used_tokens_only(model, EncodedTask(SQUAD, splits))
        model.to(device)
        started = time.perf_counter()
        loss = train(model, task.train, protocol, seed, on_step, span_losses)
        trained = time.perf_counter()
        logits = span_logits(model, task.splits["validation"], protocol)
    if not (math.isfinite(loss) and all(np.isfinite(window).all() for window in logits)):
        raise TrainError(f"{subject.name}, squad, seed {seed}: the training diverged, its loss is no number")
    predictions = answers_of(questions, windows.windows, logits, protocol, may_be_empty=version == "2.0")
    seconds = time.perf_counter() - trained
    return Answered(predictions, loss, trained - started, seconds, hardware_of(device))


def span_losses(model: Any, split: Encoded, rows: Rows, protocol: FineTuning) -> Tensor:
    """The sum over windows of the mean cross-entropy of start and end."""
    logits_BL2 = _logits(model, split, rows, protocol)
    places_B2 = sent(split.labels[rows], model.device)
    # In the form for matrices: a GPU's kernel for more dimensions is not deterministic, and refused as such.
    return F.cross_entropy(logits_BL2.mT.flatten(0, 1), places_B2.flatten(), reduction="sum") / 2


@torch.no_grad()
def span_logits(model: Any, split: Encoded, protocol: FineTuning) -> list[npt.NDArray[np.float32]]:
    """Logits of start and end of every window, without dropout; one array of (its length, 2) each."""
    model.eval()
    found: dict[int, npt.NDArray[np.float32]] = {}
    batches = batches_by_tokens(split.lengths, EVALUATION_TOKENS[model.device.type])
    # Read once all are queued: every read waits for the device.
    for rows, of_rows in zip(batches, [_logits(model, split, rows, protocol) for rows in batches], strict=True):
        for row, logits in zip(rows, of_rows.cpu().numpy(), strict=True):
            found[int(row)] = logits[: split.lengths[row]]
    return [found[row] for row in range(len(split))]


def _logits(model: Any, split: Encoded, rows: Rows, protocol: FineTuning) -> Tensor:
    inputs = padded(split, rows, model.device)
    with autocast(model.device, protocol):
        output = model(**inputs)
    logits_BL2 = torch.stack((output.start_logits, output.end_logits), dim=-1).float()
    if "attention_mask" in inputs:
        logits_BL2 = logits_BL2.masked_fill(inputs["attention_mask"][:, :, None] == 0, -torch.inf)
    return logits_BL2


def answers_of(
    questions: Sequence[Question],
    windows: Sequence[Window],
    logits: Sequence[npt.NDArray[np.float32]],
    protocol: SquadProtocol,
    *,
    may_be_empty: bool,
) -> dict[str, str]:
    """The best span of each question over its windows; empty where no answer scores higher by the threshold."""
    spans: dict[int, tuple[float, int, int]] = {}
    nothing: dict[int, float] = {}
    for window, logits_L2 in zip(windows, logits, strict=True):
        number = window.question
        nothing[number] = min(nothing.get(number, math.inf), float(logits_L2[CLS].sum()))
        span = best_span(window, logits_L2, protocol)
        if span is not None and (number not in spans or span[0] > spans[number][0]):
            spans[number] = span
    answers = {}
    for number, question in enumerate(questions):
        score, first, last = spans.get(number, (-math.inf, 0, 0))
        is_empty = may_be_empty and nothing[number] - score > protocol.null_threshold
        answers[question.name] = "" if is_empty else question.context[first:last]
    return answers


def best_span(
    window: Window, logits_L2: npt.NDArray[np.float32], protocol: SquadProtocol
) -> tuple[float, int, int] | None:
    """Score, first character and the one after the last of the window's best span; None if it has none."""
    starts, ends = (np.argsort(-logits_L2[:, side], kind="stable")[: protocol.best] for side in (0, 1))
    best: tuple[float, int, int] | None = None
    for start in starts:
        if not window.has_most_context[start]:
            continue
        for end in ends:
            fits = window.characters[end, 0] >= 0 and start <= end < start + protocol.max_answer_length
            score = float(logits_L2[start, 0] + logits_L2[end, 1])
            if fits and (best is None or score > best[0]):
                best = score, int(window.characters[start, 0]), int(window.characters[end, 1])
    return best
