"""`symbert status`: how far a corpus, a GLUE grid or a training run is, from its folder alone."""

import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import AsJson, print_json, show
from cli.values import refuse
from durable.errors import DurableError, with_hint

SECONDS_BETWEEN_LOOKS = 2.0
MOST_NAMED = 10


def status(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder of prepare, glue or pretrain; not a URL.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every two seconds, until all is done; not with --json.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Show what is done, running and failed in an output folder, at which rate, and the time left.

    Works on any machine that sees the folder, whatever the engine, also when nothing runs any more.
    """
    from durable.remote import URL

    if watch and as_json:
        raise refuse("--watch", "--json prints one document: give one of them", "call --json as often as you like")
    if URL.fullmatch(out):
        error = DurableError(f"{out} is a URL, expected a folder on this machine or a shared file system")
        raise with_hint(error, "give the folder of --staging; symbert verify takes the URL of a finished corpus")
    while True:
        found = read(Path(out))
        if as_json:
            print_json(found)
        else:
            show("\n".join(_lines(found)))
        if not watch or found["tasks"] in (None, found["done"]):
            return 0
        time.sleep(SECONDS_BETWEEN_LOOKS)


def read(out: Path) -> dict[str, Any]:
    """What `--json` prints. Raises DurableError if the folder is none of symbert's, or a file that tells is damaged."""
    from durable.status import read_status
    from oscar_prep.plan import MANIFEST, STATE

    listed = read_status(out)
    if listed is not None:
        found = listed.as_json()
        is_made = found["command"] == "prepare" and found["done"] == found["tasks"] and not (out / MANIFEST).is_file()
        return found | ({"unfinished": _unfinished(found)} if is_made else {})
    for path, describe in ((MANIFEST, _corpus), ("recipe.toml", _run), ("grid.json", _grid), (STATE, _begun_corpus)):
        if (out / path).is_file():
            return describe(out)
    raise with_hint(
        DurableError(f"{out} is no output folder of symbert, or nothing has begun there"),
        "give what prepare, glue or pretrain were given as --out",
    )


def _known(command: str, done: int, tasks: int | None) -> dict[str, Any]:
    """What there is to say where nothing is listed; `tasks` is None where nobody knows how many there are to be."""
    return {
        "command": command, "engine": None, "tasks": tasks, "done": done, "running": [], "failed": {}, "unit": "",
        "share": None if tasks is None else done / tasks if tasks else 1.0, "rate": None,
        "seconds_left": 0.0 if done == tasks else None, "waiting": None if tasks is None else tasks - done,
    }  # fmt: skip


def _corpus(out: Path) -> dict[str, Any]:
    from durable.checked import Shape, checked, read_json
    from oscar_prep.plan import MANIFEST, MANIFEST_AGAIN

    class Manifest(Shape):
        corpus_hash: str
        units: list[Any]

    path = out / MANIFEST
    manifest = checked(Manifest, read_json(path, hint=MANIFEST_AGAIN), path, hint=MANIFEST_AGAIN)
    units = len(manifest.units)
    return _known("prepare", units, units) | {"corpus_hash": manifest.corpus_hash}


def _begun_corpus(out: Path) -> dict[str, Any]:
    """A corpus without a manifest: the files that it is to hold, and the records of those that are made."""
    from durable.checked import Shape, checked, read_json
    from oscar_prep.plan import STATE

    class State(Shape):
        inputs: dict[str, Any]

    path = out / STATE
    hint = "give another --out, or put the file back from a copy"
    state = checked(State, read_json(path, hint=hint), path, hint=hint)
    found = _known("prepare", len(list(out.glob("units/data-*-of-*.json"))), len(state.inputs))
    return found | {"unfinished": _unfinished(found)}


def _unfinished(found: dict[str, Any]) -> str:
    """What a corpus without a manifest lacks, and what to type."""
    if found["done"] < found["tasks"]:
        return "not finished: run the command again"
    if found["engine"] == "slurm":
        return "not finished: all slices are made, `symbert prepare … --slice finish` has still to write manifest.json"
    return "not finished: manifest.json is missing; the command again writes it, or --slice finish if it was in slices"


def _grid(out: Path) -> dict[str, Any]:
    return _known("glue", len(list(out.glob("cells/*/*.json"))), None)


def _run(out: Path) -> dict[str, Any]:
    """Steps of a training run; the rate is that of the last row of its metrics."""
    from pydantic import Field

    from durable.checked import Shape, checked, damaged
    from train.metrics import NAME, read_metrics

    class Schedule(Shape):
        max_steps: int = Field(gt=0)

    class Recipe(Shape):
        schedule: Schedule

    class Row(Shape):
        step: int = Field(ge=0)
        tokens: int = Field(gt=0)
        tokens_per_second: float = Field(ge=0)

    path = out / "recipe.toml"
    try:
        recipe = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, str(error), DurableError) from None
    steps = checked(Recipe, recipe, path).schedule.max_steps
    rows = [row for row in read_metrics(out) if row["kind"] == "train"]
    if not rows:
        return _known("pretrain", 0, steps) | {"unit": "steps", "silent": None}
    last = checked(Row, rows[-1], out / NAME)
    rate = last.tokens_per_second * last.step / last.tokens
    return {
        **_known("pretrain", last.step, steps), "unit": "steps", "rate": rate,
        "seconds_left": (steps - last.step) / rate if rate else None,
        "silent": time.time() - (out / NAME).stat().st_mtime,
    }  # fmt: skip


def _lines(found: dict[str, Any]) -> list[str]:
    what = {"prepare": "files", "glue": "cells", "pretrain": "steps"}.get(found["command"], "tasks")
    by = f" ({found['engine']})" if found["engine"] else ""
    if found["tasks"] is None:
        return [
            f"{found['command']}{by}: {found['done']:,} {what} done",
            "no run is listed, as after one that made all it was asked for; the same command makes what is missing",
        ]
    lines = [f"{found['command']}{by}: {found['done']:,} of {found['tasks']:,} {what} done, {found['share']:.1%}"]
    if found.get("corpus_hash"):
        lines.append(f"finished, corpus hash {found['corpus_hash'][:16]}…")
    if found.get("unfinished"):
        lines.append(found["unfinished"])
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
