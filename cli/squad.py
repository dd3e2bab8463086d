"""`symbert squad`: fine-tune checkpoints on SQuAD and score their answers by the official rules."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.console import AsJson, Quiet, progress, say
from cli.glue import Which, chosen_seeds, show_outcome
from cli.values import Device, ProtocolAssignments

Version = Literal["1.1", "2.0"]


def squad(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT...", help="Model folders; a run folder stands for its newest checkpoint."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the cells and the table; the same again resumes.")],
    train: Annotated[
        Path, typer.Option("--train", help="The official training file, train-v1.1.json or train-v2.0.json.")
    ],
    dev: Annotated[Path, typer.Option("--dev", help="The official development file, on which answers are scored.")],
    version: Annotated[Version | None, typer.Option("--version", help="Told from the files by default.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N|1,2,3", help="N seeds from 1, or a list.")] = "5",
    assignments: ProtocolAssignments = None,
    which: Annotated[
        Which, typer.Option("--checkpoints", help="Of a run folder; log: each 1/√2 of the next.")
    ] = "last",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try cells again that failed in an earlier run.")
    ] = False,
    device: Device = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Cells at a time; by default one a core, or one a GPU.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Fine-tune checkpoints on SQuAD as Devlin et al. (2019) do, and write exact match and F1 of every seed.

    Finished cells are never trained again. Exit code 75: stopped by a signal, run the same command again.
    """
    numbers = chosen_seeds(seeds)
    from durable.signals import EXIT_DONE, EXIT_REFUSED, StopRequest
    from train.squad.grid import SquadRequest, run_squad
    from train.squad.protocol import resolve_squad_protocol
    from train.squad.read import read_squad
    from train.squad.table import as_document, as_markdown

    data = read_squad(train, dev, version)
    request = SquadRequest(
        checkpoints=checkpoints,
        out=out,
        data=data,
        seeds=numbers,
        protocol=resolve_squad_protocol(data.version, assignments or ()),
        retry_failed=retry_failed,
        which=which,
        device=device,
        workers=workers,
    )
    with StopRequest() as stop, progress("squad", "steps", quiet=quiet) as show:
        outcome = run_squad(request, progress=show, notice=say, stop=stop)
    facts = {"version": data.version, **as_document(outcome.table)}
    if show_outcome(outcome, out, facts if as_json else as_markdown(outcome.table), quiet=quiet):
        return EXIT_REFUSED
    return stop.exit_code if outcome.left else EXIT_DONE
