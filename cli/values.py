"""What the value of an option may be. Anything else is a wrong command line: exit code 2, naming the option.

Fixed lists stand in the annotations of the commands, for the help must not import the packages that own them; a test
holds them equal. What depends on a file, a recipe or the machine is refused elsewhere, with exit code 1.
"""

import contextlib
import functools
import inspect
import math
import operator
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Precision = Literal["auto", "fp32", "bf16", "fp16"]

SIGNS = {"above": ">", "least": "≥", "below": "<", "most": "≤"}
KEPT = {"above": operator.gt, "least": operator.ge, "below": operator.lt, "most": operator.le}


class Size(StrEnum):
    """The sizes of Courtois et al. (2024); an enumeration, since Typer takes no list of a Literal type."""

    small = "small"
    base = "base"


URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)

Bound = Callable[[float | None], float | None]


def refuse(option: str, reason: str, *hints: str) -> typer.BadParameter:
    """The usage error to raise for the value of `option`, which the message names."""
    error = typer.BadParameter(reason, param_hint=f"'{option}'")
    for hint in hints:
        error.add_note(hint)
    return error


def refuse_urls(callback: Callable[..., Any], spelled: Mapping[str, str]) -> Callable[..., Any]:
    """A command's callback that refuses a URL wherever its function is annotated to take a Path.

    Path("s3://bucket/file") would be the file s3:/bucket/file of the working folder. What may be a URL is a string.
    `spelled` has what the command line calls each parameter.
    """

    @functools.wraps(callback)
    def checked(**values: Any) -> Any:
        hints = typing.get_type_hints(inspect.unwrap(callback))
        for name in (name for name in values if _holds_path(hints[name])):
            given = values[name] if isinstance(values[name], list | tuple) else [values[name]]
            for value in given:
                if match := URL_AS_PATH.match(str(value)):
                    url = f"{match[1]}://{match[2]}"
                    raise refuse(
                        spelled[name], f"{url} is a URL, expected a path on this machine or a shared file system"
                    )
        return callback(**values)

    return checked


def _holds_path(hint: Any) -> bool:
    return hint is Path or any(map(_holds_path, typing.get_args(hint)))


def number(**bounds: float) -> Bound:
    """A callback that lets numbers through which keep all bounds: `above`, `least`, `below`, `most`.

    Typer's own ranges know no open ends, and let NaN and infinity pass.
    """
    wanted = " and ".join(f"{SIGNS[name]} {bound:g}" for name, bound in bounds.items())

    def check(value: float | None) -> float | None:
        kept = value is None or all(KEPT[name](value, bound) for name, bound in bounds.items())
        if value is not None and not (kept and math.isfinite(value)):
            raise typer.BadParameter(f"{value:g} is out of range, expected a number {wanted}")
        return value

    return check


def _device(value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"cpu|cuda(:\d+)?", value) is None:
        raise typer.BadParameter(f"{value} is no device, expected cpu, cuda or cuda:N")
    return value


Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="cpu|cuda|cuda:N", callback=_device, help="Where to compute; a GPU if there is one."
    ),
]


def _assignments(values: list[str] | None) -> list[str] | None:
    for value in values or ():
        name, equals, _ = value.partition("=")
        if not equals or not all(part.strip() for part in name.split(".")):
            raise typer.BadParameter(f"{value} is not of the form KEY=VALUE")
    return values


RecipeAssignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", callback=_assignments, help="Set one key of the recipe; may be repeated."
    ),
]
ProtocolAssignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", callback=_assignments, help="Change the protocol, as in learning_rate=2e-5."
    ),
]


@contextlib.contextmanager
def refused_as(option: str, kind: type[ValueError]) -> Iterator[None]:
    """Turn a refusal of this kind, raised by the check of the value of `option`, into a usage error with its hints."""
    try:
        yield
    except kind as error:
        raise refuse(option, str(error), *getattr(error, "__notes__", [])) from None


def operators(option: str, text: str) -> str:
    """The operator, or the comma list with one for each layer, as it was given; how many there are is not looked at."""
    from symbert import SymbertError
    from symbert.attention import find_operator

    with refused_as(option, SymbertError):
        for name in text.split(","):
            find_operator(name.strip())
    return text
