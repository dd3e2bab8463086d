"""`symbert slurm`: commands divided into slices, and pre-training on several nodes, as text for sbatch."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import say, shows_all
from cli.values import refuse
from durable.slices import MOST_SLICES

if TYPE_CHECKING:
    from durable.slurm import Resources

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Print what submits a command to Slurm.")
# What these commands do not know belongs to the command that is to be submitted.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _file(value: Path | None) -> Path | None:
    if value is not None and value.is_dir():
        raise refuse("--script", f"{value} is a folder, expected a file to write to")
    return value


Script = Annotated[
    Path | None, typer.Option("--script", callback=_file, help="Write the text to this file instead of stdout.")
]
Slices = Annotated[
    int | None, typer.Option("--slices", min=1, max=MOST_SLICES, help="Tasks of the array (one a file, or cell).")
]
AtATime = Annotated[int | None, typer.Option("--at-a-time", min=1, help="Slices that may run at once.")]
Cpus = Annotated[int, typer.Option("--cpus", min=1, help="Cores of a slice, each with one file or cell at a time.")]
Gpus = Annotated[int, typer.Option("--gpus", min=0, help="GPUs of a slice.")]


def _one_line(value: str) -> str:
    if "\n" in value:
        raise typer.BadParameter("it holds a line break, expected one line")
    return value


def _directives(values: list[str] | None) -> list[str] | None:
    for value in values or ():
        if re.match(r"--?[A-Za-z]", _one_line(value)) is None:
            hint = f"--sbatch=--{value.lstrip('- ')}"
            raise refuse("--sbatch", f"`{value}` does not begin with - as an option of sbatch does", hint)
    return values


Memory = Annotated[str, typer.Option("--memory", callback=_one_line, help="Memory of a slice.")]
Time = Annotated[
    str,
    typer.Option("--time", callback=_one_line, help="Time limit; a slice that reaches it goes on in another turn."),
]
Directives = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="DIRECTIVE",
        callback=_directives,
        help="A further directive, such as --partition=long; repeatable.",
    ),
]


@app.command("prepare", context_settings=PASS_ON)
def prepare(
    context: typer.Context,
    script: Script = None,
    slices: Slices = None,
    at_a_time: AtATime = None,
    cpus: Cpus = 1,
    memory: Memory = "4G",
    time: Time = "24:00:00",
    sbatch: Directives = None,
) -> int:
    """Open the corpus folder and print what submits the files that are missing; arguments are those of prepare."""
    from cli.corpus_plan import check_parameters, plan_of
    from durable.slurm import Resources
    from oscar_prep.plan import MANIFEST
    from oscar_prep.slices import open_slices

    parameters = _divided(context)
    if parameters["estimate"] is not None:
        raise refuse("--estimate", "it runs on this machine, in one piece", "symbert prepare INPUT --estimate SHARE")
    check_parameters(parameters)
    plan = plan_of(parameters, quiet=True)
    count = slices or min(len(plan.files), MOST_SLICES)
    missing = open_slices(plan, count, say)
    if not missing and (plan.out / MANIFEST).is_file():
        say(f"{plan.out} is finished: there is nothing to submit")
        return 0
    resources = Resources(cpus, 0, memory, time, at_a_time, tuple(sbatch or ()))
    return _print_slices(context, count, missing, resources, script)


@app.command("glue", context_settings=PASS_ON)
def glue(
    context: typer.Context,
    script: Script = None,
    slices: Slices = None,
    at_a_time: AtATime = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    memory: Memory = "8G",
    time: Time = "24:00:00",
    sbatch: Directives = None,
) -> int:
    """Open the GLUE folder and print what submits the cells that are missing; arguments are those of glue."""
    from cli.glue import request_of
    from durable.slurm import Resources
    from train.glue.grid import open_slices

    parameters = _divided(context)
    if parameters["learning_rates"] is not None:
        raise refuse("--learning-rates", "a search is not divided: give each rate a folder of its own")
    # Devices are those of the machines that will do the work, not of this one.
    missing, count = open_slices(replace(request_of(parameters), device="cpu"), slices, say)
    if not missing:
        say(f"{parameters['out']}: there is nothing to submit")
        return 0
    resources = Resources(cpus, gpus, memory, time, at_a_time, tuple(sbatch or ()))
    return _print_slices(context, count, missing, resources, script)


Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Nodes of the job.")]
NodeGpus = Annotated[
    int, typer.Option("--gpus", min=0, help="GPUs of a node, one rank each; 0: a rank a node, on its cores.")
]
RankCpus = Annotated[int, typer.Option("--cpus", min=1, help="Cores of a rank.")]
NodeMemory = Annotated[
    str | None,
    typer.Option("--memory", callback=lambda value: value and _one_line(value), help="Memory of a node (8G a rank)."),
]
TurnTime = Annotated[
    str,
    typer.Option("--time", callback=_one_line, help="Time limit; a run that reaches it goes on in another turn."),
]


@app.command("pretrain", context_settings=PASS_ON)
def pretrain(
    context: typer.Context,
    script: Script = None,
    nodes: Nodes = 1,
    gpus: NodeGpus = 1,
    cpus: RankCpus = 8,
    memory: NodeMemory = None,
    time: TurnTime = "24:00:00",
    sbatch: Directives = None,
) -> int:
    """Check a pre-training run and print what submits it as one job; arguments are those of pretrain."""
    from cli.checkpoint import model_folder
    from cli.pretrain import recipe_of
    from durable.slurm import Job, Resources, job_text
    from train.pretrain import is_left
    from train.track import TRACKERS

    parameters = _parameters(context)
    arguments = [*context.args, *_device_option(parameters["device"], gpus)]
    if parameters["dry_run"]:
        raise refuse("--dry-run", "there would be nothing to submit", "symbert pretrain … --dry-run")
    if parameters["stop_after_step"] is not None:
        raise refuse("--stop-after-step", "the job would come back into the queue for ever")
    recipe = recipe_of(*(parameters[name] for name in ("recipe", "operator", "size", "max_steps", "assignments")))
    data, out, start = parameters["data"], parameters["out"], parameters["init_from"]
    if parameters["track"] is not None:
        TRACKERS[parameters["track"]](out)  # refuses where its extra is not installed
    ranks = max(1, gpus)
    if not is_left(data, out, recipe, ranks=nodes * ranks, init_from=start and model_folder(start), notice=say):
        say(f"{out} is finished: there is nothing to submit")
        return 0
    resources = Resources(cpus, gpus, memory or f"{8 * ranks}G", time, directives=tuple(sbatch or ()))
    _print(job_text(Job("pretrain", arguments, str(Path.cwd()), nodes), resources), script, "submit the job")
    return 0


def _device_option(given: str | None, gpus: int) -> list[str]:
    """What is to be added: with the device named, a node whose GPUs do not work does not train on its cores instead."""
    device = "cuda" if gpus else "cpu"
    if given not in (None, device):
        raise refuse("--device", f"{given} does not go with --gpus {gpus}, expected {device}", "leave it out")
    return [] if given else ["--device", device]


def _parameters(context: typer.Context) -> dict[str, Any]:
    """The parameters of the command that is to be submitted, checked as that command does."""
    command_name, root = context.info_name, context.find_root().command
    assert command_name is not None
    for word in (*context.args, str(Path.cwd())):
        if "\n" in word:
            error = typer.BadParameter(f"{word!r} holds a line break, which the text for sbatch cannot carry")
            error.add_note("give the file or folder another name")
            raise error
    command = root.get_command(context, command_name)  # type: ignore[attr-defined]
    # Beside this command rather than below it, so that errors and hints name it once.
    parameters: dict[str, Any] = command.make_context(command_name, list(context.args), parent=context.parent).params
    return parameters


def _divided(context: typer.Context) -> dict[str, Any]:
    """The parameters of a command that is divided into slices."""
    parameters = _parameters(context)
    for name, option in (("slice_", "--slice"), ("ray_address", "--ray-address"), ("workers", "--workers")):
        if parameters[name] is not None:
            raise refuse(option, "how the work is divided is decided here", "--slices N --cpus N")
    if parameters["engine"] != "local":
        raise refuse("--engine", "Slurm is one itself")
    if parameters.get("ship_files"):
        raise refuse("--ship-files", "files are sent to a Ray cluster alone")
    return parameters


def _print_slices(
    context: typer.Context, count: int, missing: Sequence[int], resources: "Resources", script: Path | None
) -> int:
    from durable.slurm import Division, sbatch_text

    assert context.info_name is not None
    division = Division(context.info_name, context.args, count, missing, str(Path.cwd()))
    what = f"{len(missing)} of {count} slices have something left to do; submit them"
    _print(sbatch_text(division, resources), script, what)
    return 0


def _print(text: str, script: Path | None, what: str) -> None:
    """Print the text, or write it to `script` and say `what` is done with it."""
    from durable.errors import DurableError, with_hint
    from durable.files import write_text

    if script is None:
        if not shows_all(text):  # a `?` in the name of a folder would submit other work
            raise with_hint(
                DurableError(f"the script holds characters that stdout has not, which is {sys.stdout.encoding}"),
                "--script FILE writes it as UTF-8",
            )
        print(text, end="")
        return
    write_text(script, text)
    say(f"{what}: bash {shlex.quote(str(script))}")
