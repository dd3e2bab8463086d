"""Writes docs/reference/ from the program itself: commands, recipes, protocol, filters, operators.

`make reference` runs it; a test compares its output with what is committed. Everything comes from where it is
defined: help texts, attribute docstrings, class docstrings.
"""

import enum
import inspect
import json
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate_reference.py: run `make reference` after a change. -->\n\n"

EXIT_CODES = """## Exit codes

| code | sense |
|---:|---|
| 0 | done |
| 1 | refused or failed: one line says what, where and what was expected |
| 2 | the command line itself is wrong |
| 3 | done, but lines were put aside, or `verify` found damage |
| 75 | everything is saved, not finished: run the same command again |
| 130 | Ctrl-C; the first saves what SIGTERM would, the second stops at once |

Data goes to stdout, everything else to stderr. With `--json`, stdout is one JSON document.
"""


def pages() -> dict[str, str]:
    """File name → content of every page of the reference."""
    return {
        "commands.md": NOTE + commands(),
        "recipes.md": NOTE + recipes(),
        "glue-protocol.md": NOTE + protocol(),
        "squad-protocol.md": NOTE + squad_protocol(),
        "filters.md": NOTE + filters(),
        "operators.md": NOTE + operators(),
    }


def commands() -> str:
    """Every command, its arguments and its options."""
    parts = ["# Commands\n", "`symbert COMMAND --help` says the same in a terminal.\n", EXIT_CODES]
    for name, command in walk():
        parts.append(_command(name, command))
    return "\n".join(parts)


def walk() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name, in alphabetical order."""
    import typer

    from cli.main import app

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield name, command
            return
        for child in sorted(children):
            yield from below(f"{name} {child}", children[child])

    yield from below("symbert", typer.main.get_command(app))


def _command(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    needed = [*arguments, *(option for option in options if option.required)]
    usage = " ".join([name, *(_usage(parameter, hints) for parameter in needed)])
    lines = [f"## {name}\n", f"{_prose(command.help)}\n", f"```console\n$ {usage}\n```\n"]
    told = (*arguments, *options)
    rows = [(_name(parameter, hints), parameter.help or "", _default(parameter)) for parameter in told]
    if rows:
        lines += ["| argument or option | sense | default |", "|---|---|---|"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _usage(parameter: Any, hints: Mapping[str, Any]) -> str:
    if parameter.param_type_name == "argument":
        word = parameter.metavar or parameter.name.upper()
        return word if parameter.required else f"[{word}]"
    return f"{parameter.opts[0]} {_kind(parameter, hints)}"


def _name(parameter: Any, hints: Mapping[str, Any]) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} {_kind(parameter, hints)}"


def _kind(parameter: Any, hints: Mapping[str, Any]) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    kind = hints[parameter.name]
    while typing.get_origin(kind) not in (None, typing.Literal):  # X | None, list[X]
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(typing.get_args(kind))
    if issubclass(kind, enum.Enum):
        return "|".join(kind)
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}[kind]


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if parameter.param_type_name == "option" and parameter.is_flag:
        return "" if value is None else "on" if value else "off"
    if value is None or callable(value):
        return ""
    return " ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"`{value}`"


def recipes() -> str:
    """Every key of a recipe, and the shipped recipes."""
    from train.recipe import Recipe, recipe_names

    parts = [
        "# Recipes\n",
        "A recipe is one TOML file that describes a complete pre-training run; it lists what differs from the "
        "defaults below. A single value is changed with `--set section.key=value`; the precedence is `--set`, then "
        "flags, then the recipe, then the defaults. The run folder keeps the recipe as resolved.\n",
        "## Shipped recipes\n",
        "| name | what it is |",
        "|---|---|",
    ]
    for name in recipe_names():
        text = (ROOT / "recipes" / f"{name}.toml").read_text("utf-8")
        comment = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
        parts.append(f"| `{name}` | {_cell(' '.join(comment))} |")
    parts.append("")
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        assert section is not None
        parts += [f"## [{name}]\n", f"{_prose(section.__doc__)}\n", *_keys(section, f"{name}.")]
    return "\n".join(parts)


def protocol() -> str:
    """Every setting of fine-tuning, and what the paper leaves open."""
    from train.glue.protocol import ASSUMPTIONS, Protocol

    return "\n".join([
        "# GLUE protocol\n",
        f"{_prose(Protocol.__doc__)} A value is changed with `symbert glue --set key=value`; a GLUE folder holds the "
        "cells of one protocol.\n",
        *_keys(Protocol, ""),
        "## What the paper leaves open\n",
        "| choice | what is done |",
        "|---|---|",
        *(f"| {_cell(key.replace('_', ' '))} | {_cell(text)} |" for key, text in ASSUMPTIONS.items()),
        "",
    ])  # fmt: skip


def squad_protocol() -> str:
    """Every setting of fine-tuning on SQuAD, and the choices that are made."""
    from train.squad.protocol import ASSUMPTIONS, BY_VERSION, SquadProtocol

    by_version = "; ".join(
        f"{version}: {', '.join(f'`{key}` {value}' for key, value in settings.items())}"
        for version, settings in BY_VERSION.items()
    )
    return "\n".join([
        "# SQuAD protocol\n",
        f"{_prose(SquadProtocol.__doc__)} A value is changed with `symbert squad --set key=value`. By version, "
        f"{by_version}.\n",
        *_keys(SquadProtocol, ""),
        "## Choices\n",
        "| choice | what is done |",
        "|---|---|",
        *(f"| {_cell(key.replace('_', ' '))} | {_cell(text)} |" for key, text in ASSUMPTIONS.items()),
        "",
    ])  # fmt: skip


def filters() -> str:
    """Every rule of `symbert prepare`."""
    parts = [
        "# Filters\n",
        "The first rule that a document fails is the reason in the ledger. The options that set the rules are in "
        "[Commands](commands.md#symbert-prepare).\n",
    ]
    for rule in rules():
        parts += [f"## {rule.name}\n", f"{_prose(rule.__doc__)}\n"]
    return "\n".join(parts)


def rules() -> list[Any]:
    """The class of every rule, in the order of their definition, which is that in which they are asked."""
    from oscar_prep import filters

    classes = [found for found in vars(filters).values() if inspect.isclass(found)]
    return [found for found in classes if isinstance(getattr(found, "name", None), str)]


def operators() -> str:
    """Every attention operator."""
    from symbert import OPERATORS

    parts = [
        "# Operators\n",
        "`symbert pretrain --operator NAME`; one name per layer is written `original,pairwise,…`. The letters are the "
        "shape suffixes of `symbert/attention.py`: B batch, L query position, M key position, D hidden size, H head, "
        "K head size. How many parameters each takes is what `symbert params` prints.\n",
    ]
    for name, operator in OPERATORS.items():
        parts += [f"## {name}\n", f"{_prose(operator.__doc__)}\n"]
    return "\n".join(parts)


def _keys(model: Any, prefix: str) -> list[str]:
    lines = ["| key | sense | type | default |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = _type(field.annotation)
        bounds = ", ".join(filter(None, map(_bound, field.metadata)))
        default = json.dumps(field.default) if field.default is not None else "none"
        row = (f"`{prefix}{name}`", field.description or "", f"{kind} {bounds}".strip(), f"`{default}`")
        lines.append(f"| {' | '.join(map(_cell, row))} |")
    return [*lines, ""]


def _type(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    parts = [part for part in typing.get_args(annotation) if part is not type(None)] or [annotation]
    return " or ".join(getattr(part, "__name__", str(part)) for part in parts)


def _bound(constraint: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return " ".join(f"{sign} {getattr(constraint, key)}" for key, sign in signs.items() if hasattr(constraint, key))


def _prose(text: str | None) -> str:
    """A docstring as paragraphs of one line each."""
    paragraphs = inspect.cleandoc(text or "").replace("\b", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("<", "\\<").replace("*", "\\*")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


def main() -> None:
    """Write every page; those of commands that no longer exist stay with the tests to be found."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
