"""Fine-tuning on GLUE: symbert's against a transformers Trainer with the defaults of its run_glue example.

    python benchmarks/glue.py CHECKPOINT --data-dir GLUE [--tasks rte,cola,mrpc] [--steps 100]

The peer pads every example to 128 tokens and evaluates after each epoch, in batches of 8; batch size, learning rate,
schedule, epochs and weights are the same on both sides. Both models are in memory and take turns, step by step, on
one thread, and the clock is the process's own CPU time, in which other processes have no part. A step is everything
between two steps: data, both passes, optimizer, schedule. Evaluation is timed on a sample of the validation set and
counted pro rata: after each of the five epochs for the peer, once for symbert. Loading and tokenizing are left out on
both sides. Needs `accelerate`, which the Trainer asks for.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from train.glue.checkpoint import Subject, find_subject, load_classifier, load_tokenizer
from train.glue.encode import encode_task, with_used_tokens_only
from train.glue.finetune import predict, steps_of, training_steps
from train.glue.protocol import Protocol
from train.glue.read import Split, TaskData, read_task
from train.glue.tasks import TASKS

WARM_UP_STEPS = 3
PROTOCOL = Protocol()


class PaddedRows(Dataset[dict[str, Any]]):
    """Rows as run_glue prepares them: padded to the full length, tokenized beforehand."""

    def __init__(self, split: Split, tokenizer: Any) -> None:
        self.columns = dict(
            tokenizer(*split.text, padding="max_length", max_length=PROTOCOL.max_length, truncation=True)
        )
        self.columns["label"] = split.labels.tolist()

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: column[row] for name, column in self.columns.items()}


class Turns(TrainerCallback):
    """After each step of the Trainer, one of ours; notes the CPU seconds of both."""

    def __init__(self, ours: Iterator[Any], steps: int) -> None:
        self.ours, self.steps = ours, steps
        self.seconds: dict[str, list[float]] = {"peer": [], "symbert": []}
        self.last = time.process_time()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        now = time.process_time()
        self.seconds["peer"].append(now - self.last)
        next(self.ours)
        self.last = time.process_time()
        self.seconds["symbert"].append(self.last - now)
        control.should_training_stop = state.global_step >= self.steps

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values[WARM_UP_STEPS:]) for name, values in self.seconds.items()}


def peer(subject: Subject, data: TaskData, turns: Turns, out: Path) -> Trainer:
    """The Trainer of run_glue, on the same weights."""
    tokenizer = load_tokenizer(subject)
    model = AutoModelForSequenceClassification.from_pretrained(
        subject.folder, num_labels=len(data.task.classes) or 1, dtype=torch.float32
    )
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=PROTOCOL.batch_size,
        learning_rate=PROTOCOL.learning_rate,
        num_train_epochs=PROTOCOL.epochs,
        warmup_steps=PROTOCOL.warmup_ratio,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return Trainer(model, arguments, train_dataset=PaddedRows(data.train, tokenizer), callbacks=[turns])


def sample(split: Split, rows: int) -> Split:
    """Every so manieth row."""
    chosen = np.linspace(0, len(split) - 1, min(rows, len(split))).astype(int)
    return Split(tuple([column[row] for row in chosen] for column in split.text), split.labels[chosen])


def measure(subject: Subject, task: str, data_dir: Path, steps: int, examples: int) -> dict[str, float]:
    """CPU seconds a step and an evaluated example on both sides, and of a whole run."""
    data = read_task(TASKS[task], data_dir)
    parts = {split: sample(rows, examples) for split, rows in data.validation.items()}
    part = TaskData(data.task, {"train": data.train, **parts})
    model = load_classifier(subject, len(data.task.classes) or 1, seed=1)
    encoded, _ = with_used_tokens_only(model, encode_task(part, subject, PROTOCOL.max_length))
    turns = Turns(training_steps(model, encoded.train, PROTOCOL, 1), steps + WARM_UP_STEPS)
    trainer = peer(subject, data, turns, Path("unused"))
    trainer.train()
    found = {f"{name}_step": seconds for name, seconds in turns.medians().items()}
    rows = [PaddedRows(split, load_tokenizer(subject)) for split in parts.values()]
    for name in ("peer", "symbert"):
        started = time.process_time()
        for place, split in enumerate(parts):
            if name == "peer":
                trainer.predict(rows[place])
            else:
                predict(model, encoded.splits[split], PROTOCOL)
        found[f"{name}_example"] = (time.process_time() - started) / sum(len(split) for split in parts.values())
    validation = sum(len(split) for split in data.validation.values())
    total_steps = steps_of(len(data.train), PROTOCOL)
    found["peer_run"] = total_steps * found["peer_step"] + PROTOCOL.epochs * validation * found["peer_example"]
    found["symbert_run"] = total_steps * found["symbert_step"] + validation * found["symbert_example"]
    return found


def main() -> None:
    """Measure and print one line of JSON a task, then one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", default="rte,cola,mrpc")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--examples", type=int, default=160, help="validation examples that evaluation is timed on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    subject = find_subject(options.checkpoint, print)
    totals = {"peer_run": 0.0, "symbert_run": 0.0}
    for task in options.tasks.split(","):
        found = measure(subject, task, options.data_dir, options.steps, options.examples)
        totals = {name: totals[name] + found[name] for name in totals}
        ratios = {f"{what}_ratio": found[f"peer_{what}"] / found[f"symbert_{what}"] for what in ("step", "run")}
        show(task, found | ratios)
    show("all", {**totals, "run_ratio": totals["peer_run"] / totals["symbert_run"]})


def show(task: str, figures: dict[str, float]) -> None:
    print(json.dumps({"task": task, **{name: round(value, 4) for name, value in figures.items()}}), flush=True)


if __name__ == "__main__":
    main()
