"""The options that say where tasks run, the same for every command that has many."""

from typing import Annotated, Literal

import typer

from cli.values import refused_as

RUNNING = "Running"

EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Processes here, or a Ray cluster's.", rich_help_panel=RUNNING),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT|auto|local",
        help="A running cluster's head node, or the one of this machine; by default one is started here.",
        rich_help_panel=RUNNING,
    ),
]
ShipFiles = Annotated[
    bool,
    typer.Option(
        "--ship-files",
        help="Send lists and models to the machines of the Ray cluster, which need not see them then.",
        rich_help_panel=RUNNING,
    ),
]


def _slice(value: str | None) -> str | None:
    from durable.errors import DurableError
    from durable.slices import parse_slice

    if value is not None:
        with refused_as("--slice", DurableError):
            parse_slice(value)
    return value


SliceOption = Annotated[
    str | None,
    typer.Option(
        "--slice",
        metavar="K/N|finish",
        callback=_slice,
        help="Do slice K (from 0) of N alone, or what comes after all; `symbert slurm` writes such commands.",
        rich_help_panel=RUNNING,
    ),
]
