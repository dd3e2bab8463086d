"""Fine-tuning on GLUE: symbert's against a transformers Trainer with the defaults of its run_glue example.

    python benchmarks/glue.py CHECKPOINT --data-dir GLUE --out DIR [--tasks rte,cola,mrpc] [--steps 100]
    python benchmarks/glue.py --random-weights TOKENIZER --data-dir GLUE --out DIR --scores [--set epochs=3]
    python benchmarks/glue.py CHECKPOINT --data-dir GLUE --out DIR --stacked [--scores] [--device cuda] [--seeds 5]

The peer pads every example to 128 tokens and evaluates after each epoch, in batches of 8; batch size, learning rate,
schedule, epochs and weights are the same on both sides. Both models are in memory and take turns, step by step, on
one thread, by two clocks: the process's own CPU time, in which other processes have no part, and the wall's. A step is
everything between two steps: data, both passes, optimizer, schedule. Evaluation is timed on a sample of the validation
set and counted pro rata: after each of the five epochs for the peer, once for symbert. Loading and tokenizing are left
out on both sides. DIR/timing.json and DIR/timing.md hold what is measured so far, at any moment; a task that is
finished there is not measured again. `--scores` is in glue_scores.py, `--stacked` in glue_stacked.py. Needs
`accelerate`, which the Trainer asks for.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from glue_scores import compare_scores
from glue_stacked import compare_runs, time_steps
from glue_trainer import PaddedRows, random_weights, trainer_of

from durable.files import write_json, write_text
from train.device import find_device
from train.glue.checkpoint import Subject, find_subject
from train.glue.encode import encode_task, with_used_tokens_only
from train.glue.finetune import predict, steps_of, training_steps
from train.glue.loading import load_classifier, load_tokenizer
from train.glue.protocol import Protocol, resolve_protocol
from train.glue.read import Split, TaskData, read_task
from train.glue.tasks import TASKS

WARM_UP_STEPS = 3
EVALUATION_ROUNDS = 3
STEPS_BETWEEN_REPORTS = 5
SIDES = ("peer", "symbert")
CLOCKS: Mapping[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}

Seconds = dict[str, dict[str, list[float]]]
"""By side, then by clock: one entry a measurement."""


class Stopwatch:
    """Seconds of both sides by both clocks."""

    def __init__(self) -> None:
        self.seconds: Seconds = {side: {clock: [] for clock in CLOCKS} for side in SIDES}
        self.restart()

    def restart(self) -> None:
        self._last = {name: read() for name, read in CLOCKS.items()}

    def note(self, side: str) -> None:
        """What passed since the last note or restart is this side's."""
        now = {name: read() for name, read in CLOCKS.items()}
        for clock in CLOCKS:
            self.seconds[side][clock].append(now[clock] - self._last[clock])
        self._last = now


class Turns(TrainerCallback):
    """After each step of the Trainer, one of ours."""

    def __init__(self, ours: Iterator[Any], steps: int, report: Callable[[Seconds], None]) -> None:
        self.ours, self.steps, self.report = ours, steps, report
        self.watch = Stopwatch()

    def on_step_begin(self, _: Any, state: Any, __: Any, **___: Any) -> None:
        if state.global_step == 0:
            # Before the first step the Trainer sets itself up.
            self.watch.restart()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        self.watch.note("peer")
        next(self.ours)
        self.watch.note("symbert")
        control.should_training_stop = state.global_step >= self.steps
        if state.global_step > WARM_UP_STEPS:
            counted = {
                side: {clock: values[WARM_UP_STEPS:] for clock, values in clocks.items()}
                for side, clocks in self.watch.seconds.items()
            }
            self.report(counted)
            self.watch.restart()


def sample(split: Split, rows: int) -> Split:
    """Every so manieth row."""
    chosen = np.linspace(0, len(split) - 1, min(rows, len(split))).astype(int)
    return Split(tuple([column[row] for row in chosen] for column in split.text), split.labels[chosen])


def measure(subject: Subject, task: str, options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """Time evaluation, then the steps; `keep` gets the task's record after every few steps, and in the end."""
    protocol: Protocol = options.protocol
    data = read_task(TASKS[task], options.data_dir)
    parts = {split: sample(rows, options.examples) for split, rows in data.validation.items()}
    part = TaskData(data.task, {"train": data.train, **parts})
    model = load_classifier(subject, len(data.task.classes) or 1, seed=1)
    encoded, _ = with_used_tokens_only(model, encode_task(part, subject, protocol.max_length))

    def report(seconds: Seconds) -> None:
        done = len(seconds["peer"]["cpu"])
        if done % STEPS_BETWEEN_REPORTS == 0 or done == options.steps:
            record["steps"] = done
            record["step"] = medians(seconds)
            keep(record)
            paces = ", ".join(f"{side} {record['step'][side]['cpu']:.3f} s" for side in SIDES)
            print(f"{task}: {done}/{options.steps} steps, {paces} of CPU a step", file=sys.stderr, flush=True)

    ours = training_steps(model, encoded.train, protocol, 1)
    turns = Turns(ours, options.steps + WARM_UP_STEPS, report)
    trainer = trainer_of(subject, data, protocol, callbacks=(turns,))
    padded = [PaddedRows(split, load_tokenizer(subject), protocol.max_length) for split in parts.values()]
    watch = Stopwatch()
    for _ in range(EVALUATION_ROUNDS):
        watch.restart()
        for rows in padded:
            trainer.predict(rows)
        watch.note("peer")
        for split in parts:
            predict(model, encoded.splits[split], protocol)
        watch.note("symbert")
    evaluated = sum(len(split) for split in parts.values())
    record: dict[str, Any] = {
        "task": task,
        "mean_tokens": round(float(encoded.train.lengths.mean()), 1),
        "steps": 0,
        "steps_of_a_run": steps_of(len(data.train), protocol),
        "validation_examples": sum(len(split) for split in data.validation.values()),
        "example": {
            side: {clock: seconds / evaluated for clock, seconds in clocks.items()}
            for side, clocks in medians(watch.seconds).items()
        },
    }
    trainer.train()


def medians(seconds: Seconds) -> dict[str, dict[str, float]]:
    """By side and clock."""
    return {
        side: {clock: statistics.median(values) for clock, values in clocks.items()} for side, clocks in seconds.items()
    }


def run_seconds(record: Mapping[str, Any], side: str, clock: str, epochs: int) -> float:
    """A whole run of a task: every step, and evaluation once for symbert, after each epoch for the peer."""
    times = epochs if side == "peer" else 1
    evaluation = times * record["validation_examples"] * record["example"][side][clock]
    return float(record["steps_of_a_run"] * record["step"][side][clock] + evaluation)


def as_markdown(document: Mapping[str, Any]) -> str:
    """One line a task, and the sum of whole runs."""
    epochs = document["settings"]["protocol"]["epochs"]
    head = ["task", "mean tokens", "steps measured", "clock", "Trainer, s a step", "symbert, s a step"]
    lines = [[*head, "ratio of steps", "ratio of whole runs"], ["---"] * (len(head) + 2)]
    for clock in CLOCKS:
        totals = dict.fromkeys(SIDES, 0.0)
        for record in document["tasks"].values():
            runs = {side: run_seconds(record, side, clock, epochs) for side in SIDES}
            totals = {side: totals[side] + runs[side] for side in SIDES}
            peer, ours = (record["step"][side][clock] for side in SIDES)
            seconds = [f"{peer:.3f}", f"{ours:.3f}", f"{peer / ours:.1f}", f"{runs['peer'] / runs['symbert']:.1f}"]
            lines.append([record["task"], str(record["mean_tokens"]), str(record["steps"]), clock, *seconds])
        together = [f"{totals['peer']:,.0f} s a run", f"{totals['symbert']:,.0f} s a run"]
        lines.append(["together", "", "", clock, *together, "", f"{totals['peer'] / totals['symbert']:.1f}"])
    where = ", ".join(f"{name} {value}" for name, value in document["environment"].items())
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{where}\n"


def time_tasks(subject: Subject, options: argparse.Namespace) -> None:
    """Measure every task that DIR does not hold yet, and print the table."""
    path = options.out / "timing.json"
    settings = {
        "weights": subject.weights,
        "protocol": options.protocol.record(),
        "steps": options.steps,
        "examples": options.examples,
    }
    document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if document.get("settings", settings) != settings:
        raise SystemExit(f"error: {path} was measured with other settings; give another --out")
    document |= {"settings": settings, "environment": environment(), "tasks": document.get("tasks", {})}

    def keep(record: dict[str, Any]) -> None:
        document["tasks"][record["task"]] = record
        write_json(path, document)
        write_text(options.out / "timing.md", as_markdown(document))

    for task in options.tasks.split(","):
        if document["tasks"].get(task, {}).get("steps") != options.steps:
            measure(subject, task, options, keep)
    print(as_markdown(document), end="")


def environment() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def main() -> None:
    """Measure and print, by what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--random-weights", type=Path, metavar="TOKENIZER", help="a tiny model, made in DIR/model")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is measured; the same again goes on")
    parser.add_argument("--tasks", default="rte,cola,mrpc")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--examples", type=int, default=160, help="validation examples that evaluation is timed on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the protocol")
    parser.add_argument("--scores", action="store_true", help="compare scores over --seeds instead of seconds")
    parser.add_argument("--stacked", action="store_true", help="seeds in one stack against one by one, no Trainer")
    parser.add_argument("--device", default="cpu", help="of --stacked; the rest is measured on the CPU")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    options.protocol = resolve_protocol(options.set)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if (options.checkpoint is None) == (options.random_weights is None):
        parser.error("expected either CHECKPOINT or --random-weights TOKENIZER")
    made = options.random_weights and random_weights(options.out / "model", options.random_weights)
    subject = find_subject(made or options.checkpoint, print)
    options.out.mkdir(parents=True, exist_ok=True)
    tasks, seeds = options.tasks.split(","), range(1, options.seeds + 1)
    what = subject, options.data_dir, options.out, tasks, seeds, options.protocol
    if options.stacked and options.scores:
        compare_runs(*what, find_device(options.device))
    elif options.stacked:
        time_steps(*what, find_device(options.device), options.steps)
    elif options.scores:
        compare_scores(*what)
    else:
        time_tasks(subject, options)


if __name__ == "__main__":
    main()
