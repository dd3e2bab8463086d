"""`symbert glue`: fine-tune checkpoints on GLUE and write the table."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import AsJson, Quiet, print_json, progress, say


def glue(
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
        str, typer.Option("--tasks", help="all, or some of cola,sst2,mrpc,stsb,qqp,mnli,qnli,rte,wnli.")
    ] = "all",
    seeds: Annotated[str, typer.Option("--seeds", metavar="N|1,2,3", help="N seeds from 1, or a list.")] = "5",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the protocol, as in learning_rate=2e-5."),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option("--learning-rates", metavar="A,B,C", help="A grid under each; the table takes every task's best."),
    ] = None,
    which: Annotated[
        str, typer.Option("--checkpoints", help="Of a run folder: last, all, or log (each 1/√2 of the next).")
    ] = "last",
    average: Annotated[
        str, typer.Option("--average", help="nine numbers, tasks (MNLI once), or leaderboard (and WNLI).")
    ] = "nine",
    noise: Annotated[
        str | None, typer.Option("--noise", help="Also score on damaged sentences: typos, drop or swap.")
    ] = None,
    noise_rate: Annotated[
        float | None, typer.Option("--noise-rate", help="Share of the words that are hit (0.1).")
    ] = None,
    predictions: Annotated[
        bool,
        typer.Option("--predictions", help="Also predict the test sets, in the leaderboard's layout; trains again."),
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda; by default cuda where there is a GPU.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Cells at a time; by default one a core, one on a GPU.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Fine-tune checkpoints on GLUE under the protocol of Courtois et al. (2024) and write the table.

    Finished cells are never trained again. Exit code 75: stopped by a signal, run the same command again.
    """
    chosen_seeds = _seeds(seeds)
    rates = _rates(learning_rates)
    from durable.signals import EXIT_DONE, EXIT_REFUSED, StopRequest
    from train.glue.grid import Request, run_grid
    from train.glue.protocol import resolve_protocol
    from train.glue.search import run_search
    from train.glue.table import as_document, as_markdown
    from train.glue.tasks import chosen_average, chosen_tasks

    flags = {"noise": noise, "noise_rate": noise_rate}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    request = Request(
        checkpoints=checkpoints,
        out=out,
        tasks=chosen_tasks(name.strip() for name in tasks.split(",")),
        seeds=chosen_seeds,
        protocol=resolve_protocol([*given, *(assignments or ())]),
        data_dir=data_dir,
        predictions=predictions,
        average=chosen_average(average),
        which=which,
        device=device,
        workers=workers,
    )
    with StopRequest() as stop, progress("glue", "steps", quiet=quiet) as show:
        if rates:
            outcome = run_search(request, rates, progress=show, notice=say, stop=stop)
        else:
            outcome = run_grid(request, progress=show, notice=say, stop=stop)
    if as_json:
        counts = {"trained": outcome.trained, "found": outcome.found, "left": outcome.left}
        print_json({**counts, "failed": outcome.failed, **as_document(outcome.table)})
    else:
        print(as_markdown(outcome.table), end="")
    if not quiet:
        say(f"{outcome.trained} cells trained, {outcome.found} found, {outcome.left} left; table in {out}")
    for cell, reason in outcome.failed.items():
        say(f"error: {cell}: {reason}")
    if outcome.failed:
        say("\nhint: the same command tries the failed cells again")
        return EXIT_REFUSED
    return stop.exit_code if outcome.left else EXIT_DONE


def _seeds(text: str) -> list[int]:
    """`3` is 1, 2, 3; `3,` is 3 alone; `1,4` is 1 and 4."""
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(part.isascii() and part.isdecimal() for part in numbers):
        raise typer.BadParameter(f"{text} is neither a number of seeds nor a list such as 1,2,3", param_hint="--seeds")
    if "," in text:
        return list(dict.fromkeys(int(part) for part in numbers))
    if int(text) < 1:
        raise typer.BadParameter(f"{text}, expected at least one seed", param_hint="--seeds")
    return list(range(1, int(text) + 1))


def _rates(text: str | None) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        rates = [0.0]
    if not all(0 < rate < 1 for rate in rates):
        raise typer.BadParameter(f"{text} is not a list such as 1e-5,2e-5", param_hint="--learning-rates")
    return sorted(set(rates))
