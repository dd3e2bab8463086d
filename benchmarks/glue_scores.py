"""Scores of benchmarks/glue.py: the same fine-tuning by symbert's grid and by the Trainer, over several seeds.

    DIR/symbert/                      a GLUE folder, as `symbert glue` writes it
    DIR/trainer/<task>-<seed>.json    what the Trainer reached
    DIR/scores.md                     both beside each other

Weights, epochs, batch size, learning rate and schedule are the same; order, dropout and first values of the head are
drawn otherwise, so single seeds differ and means must agree. A cell that is there is not trained again.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from glue_trainer import PaddedRows, trainer_of

from durable.files import write_json, write_text
from train.glue.cells import read_cells
from train.glue.checkpoint import Subject
from train.glue.grid import run_grid
from train.glue.loading import load_tokenizer
from train.glue.protocol import Protocol
from train.glue.read import TaskData, read_task
from train.glue.request import Request
from train.glue.score import Summary, predictions_of, scores_of
from train.glue.tasks import TASKS, Task

Scores = dict[str, dict[int, float]]
"""Metric → seed → value."""


def compare_scores(
    subject: Subject, data_dir: Path, out: Path, tasks: Sequence[str], seeds: Sequence[int], protocol: Protocol
) -> None:
    """Train what is missing on both sides and print the table."""
    data = {name: read_task(TASKS[name], data_dir) for name in tasks}
    peer = {name: _by_trainer(subject, data[name], out / "trainer", seeds, protocol) for name in tasks}
    ours = _by_symbert(subject, data_dir, out / "symbert", [TASKS[name] for name in tasks], seeds, protocol)
    constants = {name: majority(data[name]) for name in tasks}
    text = as_markdown(
        [
            line(f"{name}, {metric}", *(_summary(side[name][metric], seeds) for side in (peer, ours)), constant)
            for name in tasks
            for metric, constant in constants[name].items()
        ]
    )
    settings = f"epochs {protocol.epochs}, batches of {protocol.batch_size}, learning rate {protocol.learning_rate:g}"
    text += f"\nSeeds {', '.join(map(str, seeds))}; {settings}; weights {subject.weights[:12]}.\n"
    write_text(out / "scores.md", text)
    print(text, end="")


def _by_symbert(
    subject: Subject, data_dir: Path, out: Path, tasks: Sequence[Task], seeds: Sequence[int], protocol: Protocol
) -> dict[str, Scores]:
    started = time.process_time()
    outcome = run_grid(
        Request([subject.folder], out, tasks, list(seeds), protocol, data_dir, device="cpu", workers=1),
        notice=_say,
    )
    if outcome.failed:
        raise SystemExit(f"error: {outcome.failed}")
    _say(f"symbert: {outcome.trained} cells trained in {time.process_time() - started:.0f} s of CPU")
    scores: dict[str, Scores] = {}
    for cell in read_cells(out):
        for metric, value in cell["scores"].items():
            by_seed = scores.setdefault(cell["identity"]["task"], {}).setdefault(metric, {})
            by_seed[cell["identity"]["seed"]] = value
    return scores


def _by_trainer(subject: Subject, data: TaskData, out: Path, seeds: Sequence[int], protocol: Protocol) -> Scores:
    found: Scores = {}
    for seed in seeds:
        path = out / f"{data.task.name}-{seed}.json"
        settings = {"weights": subject.weights, "data": data.sha256, "protocol": protocol.record(), "seed": seed}
        if not path.is_file():
            started = time.process_time()
            scores = _trained(subject, data, seed, protocol)
            seconds = time.process_time() - started
            write_json(path, {"settings": settings, "scores": scores, "cpu_seconds": round(seconds, 1)})
            _say(f"Trainer: {path.stem} {scores} in {seconds:.0f} s of CPU")
        record = json.loads(path.read_text("utf-8"))
        if record["settings"] != settings:
            raise SystemExit(f"error: {path} was made with other settings; give another --out")
        for metric, value in record["scores"].items():
            found.setdefault(metric, {})[seed] = value
    return found


def _trained(subject: Subject, data: TaskData, seed: int, protocol: Protocol) -> dict[str, float]:
    trainer = trainer_of(subject, data, protocol, seed)
    trainer.train()
    tokenizer = load_tokenizer(subject)
    predictions = {
        name: predictions_of(data.task, trainer.predict(PaddedRows(split, tokenizer, protocol.max_length)).predictions)
        for name, split in data.validation.items()
    }
    return scores_of(data.task, predictions, {name: split.labels for name, split in data.validation.items()})


def majority(data: TaskData) -> dict[str, float]:
    """What the commonest label of the training set would score, by metric; 0 for a regression."""
    labels = {name: split.labels for name, split in data.validation.items()}
    commonest = 0.0 if data.task.is_regression else np.bincount(data.train.labels.astype(np.int64)).argmax()
    constant = {name: np.full_like(values, commonest) for name, values in labels.items()}
    return scores_of(data.task, constant, labels)


def _summary(values: Mapping[int, float], seeds: Sequence[int]) -> Summary:
    return Summary(tuple(seeds), tuple(values[seed] for seed in seeds))


def line(name: str, peer: Summary, ours: Summary, constant: float) -> list[str]:
    """A row of the table, in percent; at its end whether both means beat one answer for all, and whether they agree."""
    difference = ours.mean - peer.mean
    error = math.sqrt(sum(statistics.variance(side.values) / len(side.values) for side in (peer, ours)))
    holds = min(peer.mean, ours.mean) > constant, abs(difference) <= 2 * error
    sides = [f"{100 * side.mean:.2f} ({100 * (side.standard_deviation or 0):.2f})" for side in (peer, ours)]
    shown = [f"{100 * constant:.2f}", f"{100 * difference:+.2f}", f"{200 * error:.2f}"]
    return [name, *sides, *shown, *("yes" if condition else "no" for condition in holds)]


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    head = ["", "Trainer (std)", "symbert (std)", "one answer", "difference", "two standard errors", "above", "agree"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
