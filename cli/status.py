"""`symbert status`: how far a corpus, a GLUE grid or a training run is, from its folder alone."""

import json
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import AsJson, print_json
from durable.errors import DurableError, with_hint

SECONDS_BETWEEN_LOOKS = 2.0
MOST_NAMED = 10


def status(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of prepare, glue or pretrain.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until all is done.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show what is done, running and failed in an output folder, at which rate, and the time left.

    Works on any machine that sees the folder, whatever the engine, also when nothing runs any more.
    """
    while True:
        found = read(out)
        if as_json:
            print_json(found)
        else:
            print("\n".join(_lines(found)), flush=True)
        if not watch or found["done"] == found["tasks"]:
            return 0
        time.sleep(SECONDS_BETWEEN_LOOKS)


def read(out: Path) -> dict[str, Any]:
    """What `--json` prints. Raises DurableError if the folder is none of symbert's."""
    from durable.status import read_status

    listed = read_status(out)
    if listed is not None:
        return listed.as_json()
    for path, describe in (("manifest.json", _corpus), ("recipe.toml", _run), ("grid.json", _grid)):
        if (out / path).is_file():
            return describe(out)
    raise with_hint(
        DurableError(f"{out} is no output folder of symbert, or nothing has begun there"),
        "give what prepare, glue or pretrain were given as --out",
    )


def _finished(command: str, tasks: int) -> dict[str, Any]:
    return {
        "command": command, "engine": None, "tasks": tasks, "done": tasks, "running": [], "failed": {}, "unit": "",
        "share": 1.0, "rate": None, "seconds_left": 0.0, "waiting": 0,
    }  # fmt: skip


def _corpus(out: Path) -> dict[str, Any]:
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    return _finished("prepare", len(manifest["units"])) | {"corpus_hash": manifest["corpus_hash"]}


def _grid(out: Path) -> dict[str, Any]:
    return _finished("glue", len(list(out.glob("cells/*/*.json"))))


def _run(out: Path) -> dict[str, Any]:
    """Steps of a training run; the rate is that of the last row of its metrics."""
    from train.metrics import NAME, read_metrics

    steps = tomllib.loads((out / "recipe.toml").read_text("utf-8"))["schedule"]["max_steps"]
    rows = [row for row in read_metrics(out) if row["kind"] == "train"]
    step = rows[-1]["step"] if rows else 0
    rate = rows[-1]["tokens_per_second"] * step / rows[-1]["tokens"] if rows else None
    silent = time.time() - (out / NAME).stat().st_mtime if rows else None
    return {
        **_finished("pretrain", steps), "done": step, "waiting": steps - step, "unit": "steps", "share": step / steps,
        "rate": rate, "seconds_left": (steps - step) / rate if rate else None, "silent": silent,
    }  # fmt: skip


def _lines(found: dict[str, Any]) -> list[str]:
    what = {"prepare": "files", "glue": "cells", "pretrain": "steps"}.get(found["command"], "tasks")
    by = f" ({found['engine']})" if found["engine"] else ""
    lines = [f"{found['command']}{by}: {found['done']:,} of {found['tasks']:,} {what} done, {found['share']:.1%}"]
    if found.get("corpus_hash"):
        lines.append(f"finished, corpus hash {found['corpus_hash'][:16]}…")
    if found["rate"] and found["waiting"] + len(found["running"]):
        rate = f"{found['rate'] / 1e6:.3g} MB" if found["unit"] == "B" else f"{found['rate']:.3g} {found['unit']}"
        lines.append(f"{rate} a second, {_duration(found['seconds_left'])} left")
    if found.get("silent"):
        lines.append(f"last heard of {_duration(found['silent'])} ago")
    lines += [_running(task) for task in found["running"][:MOST_NAMED]]
    if len(found["running"]) > MOST_NAMED:
        lines.append(f"running  and {len(found['running']) - MOST_NAMED:,} more")
    lines += [f"failed   {name}: {reason}" for name, reason in list(found["failed"].items())[:MOST_NAMED]]
    if len(found["failed"]) > MOST_NAMED:
        lines.append(f"failed   and {len(found['failed']) - MOST_NAMED:,} more")
    return lines


def _running(task: dict[str, Any]) -> str:
    from durable.status import SECONDS_OF_SILENCE

    dead = f", not heard of for {_duration(task['silent'])}" if task["silent"] > SECONDS_OF_SILENCE else ""
    where = f"process {task['pid']} on {task['host']}"
    return f"running  {task['name']}: {task['share']:.0%} in {_duration(task['seconds'])}, {where}{dead}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
