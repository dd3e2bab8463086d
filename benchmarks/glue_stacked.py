"""Seeds of one task trained as one stack against the same seeds trained one after another, for benchmarks/glue.py.

    DIR/stacked.md, DIR/stacked.json    seconds of a step of all seeds, both ways in turns
    DIR/stacked/, DIR/separate/         with --scores: whole runs as `symbert glue` makes them, two GLUE folders
    DIR/runs.md                         their training seconds and scores beside each other

A GPU is waited for before the clock is read. Loading and tokenizing are left out; a step is data, both passes,
clipping, optimizer and schedule. A run whose cells are there is not made again.
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from durable.files import write_json, write_text
from train.device import repeatable
from train.glue.cells import read_cells
from train.glue.checkpoint import Subject
from train.glue.encode import encode_task, with_used_tokens_only
from train.glue.finetune import hardware_of, training_steps
from train.glue.grid import run_grid
from train.glue.loading import load_classifier
from train.glue.lockstep import Stack, stacked_steps
from train.glue.protocol import Protocol
from train.glue.read import read_task
from train.glue.request import Request
from train.glue.score import numbers_of
from train.glue.tasks import TASKS

WARM_UP_STEPS = 3
WAYS = {"separate": False, "stacked": True}


def time_steps(
    subject: Subject, data_dir: Path, out: Path, tasks: Sequence[str], seeds: Sequence[int], protocol: Protocol,
    device: torch.device, steps: int,
) -> None:  # fmt: skip
    """Time both ways on every task, in turns, and print the table."""
    records = []
    for name in tasks:
        data = encode_task(read_task(TASKS[name], data_dir), subject, protocol.max_length)
        seconds = _in_turns(subject, data, seeds, protocol, device, steps)
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        records.append({"task": name, "seeds": len(seeds), "steps": len(seconds["stacked"]), **medians})
        write_json(out / "stacked.json", {"device": hardware_of(device), "torch": torch.__version__, "tasks": records})
        write_text(out / "stacked.md", _as_markdown(records, device))
    print(_as_markdown(records, device), end="")


def _in_turns(
    subject: Subject, data: Any, seeds: Sequence[int], protocol: Protocol, device: torch.device, steps: int
) -> dict[str, list[float]]:
    """Seconds of a step of all seeds, by way, after a few to warm up."""

    def models() -> list[Any]:
        made = [load_classifier(subject, len(data.task.classes) or 1, seed) for seed in seeds]
        splits.extend(with_used_tokens_only(model, data)[0].train for model in made)
        return made

    splits: list[Any] = []
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with repeatable(device, tf32=protocol.tf32):
        stack = stacked_steps(Stack(models(), device), splits[0], protocol, seeds)
        single = [
            training_steps(model.to(device), splits[0], protocol, seed)
            for model, seed in zip(models(), seeds, strict=True)
        ]
        # A run may have fewer steps than are asked for: zip ends with it.
        turns = {"separate": zip(*single, strict=True), "stacked": stack}
        for _ in range(steps + WARM_UP_STEPS):
            for way, turn in turns.items():
                started = time.perf_counter()
                if next(turn, None) is None:
                    return {way: values[WARM_UP_STEPS:] for way, values in seconds.items()}
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[way].append(time.perf_counter() - started)
    return {way: values[WARM_UP_STEPS:] for way, values in seconds.items()}


def _as_markdown(records: Sequence[Mapping[str, Any]], device: torch.device) -> str:
    lines = [["task", "seeds", "steps", "separate, ms a step of all", "stacked, ms", "ratio"], ["---", *["---:"] * 5]]
    for record in records:
        shown = [f"{1000 * record[way]:.1f}" for way in WAYS]
        ratio = f"{record['separate'] / record['stacked']:.2f}"
        lines.append([record["task"], str(record["seeds"]), str(record["steps"]), *shown, ratio])
    return _table(lines) + f"\n{hardware_of(device)}, torch {torch.__version__}\n"


def compare_runs(
    subject: Subject, data_dir: Path, out: Path, tasks: Sequence[str], seeds: Sequence[int], protocol: Protocol,
    device: torch.device,
) -> None:  # fmt: skip
    """Make whole runs both ways, and print training seconds of all seeds and mean scores."""
    found = {}
    for way, stack_seeds in WAYS.items():
        request = Request(
            [subject.folder], out / way, [TASKS[name] for name in tasks], list(seeds), protocol, data_dir,
            device=str(device), workers=1, stack_seeds=stack_seeds,
        )  # fmt: skip
        outcome = run_grid(request, notice=_say)
        if outcome.failed:
            raise SystemExit(f"error: {outcome.failed}")
        found[way] = read_cells(out / way)
    lines = [["task", "separate, s", "stacked, s", "ratio", "separate, score (std)", "stacked, score (std)"]]
    lines.append(["---", *["---:"] * 5])
    for name in tasks:
        seconds, scores = [], []
        for cells in found.values():
            of_task = [cell for cell in cells if cell["identity"]["task"] == name]
            seconds.append(sum(cell["timing"]["training_seconds"] for cell in of_task))
            values = [100 * statistics.fmean(numbers_of(TASKS[name], cell["scores"]).values()) for cell in of_task]
            scores.append(f"{statistics.fmean(values):.2f} ({statistics.stdev(values) if len(values) > 1 else 0:.2f})")
        lines.append([name, *(f"{value:.1f}" for value in seconds), f"{seconds[0] / seconds[1]:.2f}", *scores])
    text = _table(lines) + f"\n{hardware_of(device)}, torch {torch.__version__}, seeds {', '.join(map(str, seeds))}\n"
    write_text(out / "runs.md", text)
    print(text, end="")


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
