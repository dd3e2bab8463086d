"""`symbert glue`: fine-tune checkpoints on GLUE and write the table."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.console import AsJson, Quiet, print_json, progress, say, show
from cli.engine import EngineName, RayAddress, SliceOption
from cli.values import Device, ProtocolAssignments, number, refuse, refused_as

if TYPE_CHECKING:
    from train.glue.request import Outcome, Request

Which = Literal["last", "all", "log"]
Average = Literal["nine", "tasks", "leaderboard"]
Noise = Literal["typos", "drop", "swap"]
AS_GIVEN = (
    "checkpoints",
    "out",
    "data_dir",
    "predictions",
    "published",
    "retry_failed",
    "which",
    "device",
    "workers",
    "stack_seeds",
)
"""Options that the grid takes by the same name and value."""
MOST_SEEDS = 10_000


def glue(
    context: typer.Context,
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT...", help="Model folders; a run folder stands for its newest checkpoint."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the cells and the table; the same again resumes.")],
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Official TSV files; without it nyu-mll/glue from the hub."),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            metavar="LIST|all",
            help="all of the average, or some of cola,sst2,mrpc,stsb,qqp,mnli,qnli,rte,wnli,massive,emotion.",
        ),
    ] = "all",
    seeds: Annotated[str, typer.Option("--seeds", metavar="N|1,2,3", help="N seeds from 1, or a list.")] = "5",
    assignments: ProtocolAssignments = None,
    learning_rates: Annotated[
        str | None,
        typer.Option("--learning-rates", metavar="A,B,C", help="A grid under each; the table takes every task's best."),
    ] = None,
    which: Annotated[
        Which, typer.Option("--checkpoints", help="Of a run folder; log: each 1/√2 of the next.")
    ] = "last",
    average: Annotated[
        Average, typer.Option("--average", help="nine numbers, tasks (MNLI once), or leaderboard (and WNLI).")
    ] = "nine",
    published: Annotated[
        bool, typer.Option("--published", help="Show published scores below one's own, with their source.")
    ] = False,
    noise: Annotated[Noise | None, typer.Option("--noise", help="Also score on sentences damaged in this way.")] = None,
    noise_rate: Annotated[
        float | None,
        typer.Option("--noise-rate", callback=number(above=0, most=1), help="Share of the words that are hit (0.1)."),
    ] = None,
    predictions: Annotated[
        bool,
        typer.Option("--predictions", help="Also predict the test sets, in the leaderboard's layout; trains again."),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try cells again that failed in an earlier run.")
    ] = False,
    device: Device = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Cells at a time; by default one a core, or one a GPU.")
    ] = None,
    stack_seeds: Annotated[
        bool | None,
        typer.Option("--stack-seeds/--no-stack-seeds", help="Train the seeds of a task as one; by default on a GPU."),
    ] = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    slice_: SliceOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Fine-tune checkpoints on GLUE under the protocol of Courtois et al. (2024) and write the table.

    Finished cells are never trained again. Exit code 75: stopped by a signal, run the same command again.
    """
    if slice_ not in (None, "finish") and engine != "local":
        raise refuse("--slice", "--engine divides the work too: give one of them")
    rates = _rates(learning_rates)
    if slice_ is not None and rates:
        raise refuse("--slice", "a search over learning rates is not divided: give each rate a folder of its own")
    from dataclasses import replace

    from durable.engines import engine as engine_of
    from durable.signals import EXIT_DONE, EXIT_REFUSED, StopRequest
    from train.glue.grid import run_grid
    from train.glue.layouts import as_document, as_markdown
    from train.glue.search import run_search

    request = request_of(context.params)
    with (
        StopRequest() as stop,
        engine_of(engine, ray_address, workers) as where,
        progress("glue", "steps", quiet=quiet) as show,
    ):
        request = replace(request, engine=where, slice=slice_)
        if rates:
            outcome = run_search(request, rates, progress=show, notice=say, stop=stop)
        else:
            outcome = run_grid(request, progress=show, notice=say, stop=stop)
    facts = as_document(outcome.table)
    if show_outcome(outcome, out, facts if as_json else as_markdown(outcome.table), quiet=quiet):
        return EXIT_REFUSED
    return stop.exit_code if outcome.left else EXIT_DONE


def show_outcome(outcome: "Outcome[Any]", out: Path, table: Mapping[str, Any] | str, *, quiet: bool) -> bool:
    """Print the table, as a text or within one JSON document, and what became of the cells; whether any failed."""
    if isinstance(table, str):
        show(table, end="")
    else:
        counts = {"trained": outcome.trained, "found": outcome.found, "left": outcome.left}
        print_json({**counts, "failed": outcome.failed, **table})
    if not quiet:
        say(f"{outcome.trained} cells trained, {outcome.found} found, {outcome.left} left; table in {out}")
    for cell, reason in outcome.failed.items():
        say(f"error: {cell}: {reason}")
    if outcome.failed:
        say("\nhint: --retry-failed tries the failed cells again")
    return bool(outcome.failed)


def request_of(parameters: Mapping[str, Any]) -> "Request":
    """The grid that the parameters of `symbert glue` describe."""
    seeds = chosen_seeds(parameters["seeds"])
    from train.errors import TrainError
    from train.glue.protocol import resolve_protocol
    from train.glue.request import Request
    from train.glue.tasks import chosen_average, chosen_tasks

    with refused_as("--tasks", TrainError):
        tasks = chosen_tasks(name.strip() for name in parameters["tasks"].split(","))
    given = [f"{key}={parameters[key]}" for key in ("noise", "noise_rate") if parameters[key] is not None]
    assigned = parameters["assignments"] or ()
    keys = {assignment.partition("=")[0].strip() for assignment in assigned}
    for option in ("noise", "noise_rate", "learning_rates"):
        key = option.removesuffix("s")
        if parameters[option] is not None and key in keys:
            raise refuse("--set", f"{key} is given by --{option.replace('_', '-')} already: give one of them")
    protocol = resolve_protocol([*given, *assigned])
    if protocol.noise == "none" and (parameters["noise_rate"] is not None or "noise_rate" in keys):
        option = "--set" if parameters["noise_rate"] is None else "--noise-rate"
        raise refuse(option, "noise_rate is given, and no kind of noise", "--noise typos")
    as_given = {name: parameters[name] for name in AS_GIVEN}
    return Request(
        tasks=tasks, seeds=seeds, protocol=protocol, average=chosen_average(parameters["average"]), **as_given
    )


def chosen_seeds(text: str) -> list[int]:
    """What --seeds says: `3` is 1, 2, 3; `3,` is 3 alone; `1,4` is 1 and 4."""
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(part.isascii() and part.isdecimal() for part in numbers):
        raise refuse("--seeds", f"{text} is neither a number of seeds nor a list such as 1,2,3")
    if "," in text:
        return list(dict.fromkeys(int(part) for part in numbers))
    if not text.strip("0"):
        raise refuse("--seeds", f"{text}, expected at least one seed")
    if len(text) > len(str(MOST_SEEDS)) or int(text) > MOST_SEEDS:
        raise refuse(
            "--seeds", f"{text:.20} seeds, expected at most {MOST_SEEDS:,}", f"--seeds {text:.20}, is one seed"
        )
    return list(range(1, int(text) + 1))


def _rates(text: str | None) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        rates = [0.0]
    if not all(0 < rate < 1 for rate in rates):
        raise refuse("--learning-rates", f"{text} is not a list such as 1e-5,2e-5")
    return sorted(set(rates))
