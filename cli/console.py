"""What the user sees: data on stdout; everything else, errors and progress included, on stderr."""

import codecs
import contextlib
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from durable.progress import ProgressCallback, silent

SECONDS_BETWEEN_LINES = 10.0

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only errors and the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""What a terminal may obey, such as the escape that begins a change of its title, written as it would be in Python."""
IN_TEXT = {code: written for code, written in CONTROL.items() if chr(code) not in "\n\t"}
IN_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Those that JSON leaves as they are."""


def one_line(text: object) -> str:
    """What a file says of itself, such as a URL, with every control character made visible, newlines too."""
    return str(text).translate(CONTROL)


def visible(text: str) -> str:
    """A text of lines with its control characters made visible, newlines and tabs aside."""
    return text.translate(IN_TEXT)


def show_what_can_be_shown() -> None:
    """Have stdout and stderr write `?` for what their encoding lacks: finished work must not end with an error.

    Workers and other commands that this process starts do likewise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
            os.environ["PYTHONIOENCODING"] = f"{stream.encoding}:replace"


def shows_all(text: str) -> bool:
    """Whether stdout can write the text as it is."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def say(text: str) -> None:
    """One line for the user on stderr; control characters but newlines and tabs are made visible."""
    print(visible(text), file=sys.stderr, flush=True)


def show(text: str, end: str = "\n") -> None:
    """Text for the user on stdout; control characters but newlines and tabs are made visible."""
    print(visible(text), end=end, flush=True)


def print_error(error: BaseException) -> None:
    """`error:` what, where, what was expected; `hint:` what to type next."""
    say(f"error: {error}")
    for note in getattr(error, "__notes__", []):
        say(f"\nhint: {note}")


def print_json(document: Any) -> None:
    """One JSON document on stdout: UTF-8, or ASCII with escapes where stdout has another encoding."""
    utf_8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    print(json.dumps(document, indent=2, ensure_ascii=not utf_8, allow_nan=False).translate(IN_JSON))


def command_line(context: typer.Context) -> str:
    """The command as it was typed, as far as it decides anything: arguments, then the options that were given."""
    arguments: list[str] = []
    options: list[str] = []
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[str(parameter.name)]
        values = [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]
        if parameter.param_type_name == "argument":
            arguments += values
        elif isinstance(value, bool):
            options.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            options += [parameter.opts[0], *values]
    command = context.command_path.split()
    if any(argument.startswith("-") for argument in arguments):
        return shlex.join([*command, *options, "--", *arguments])
    return shlex.join([*command, *arguments, *options])


@contextlib.contextmanager
def progress(description: str, unit: str, *, quiet: bool = False) -> Iterator[ProgressCallback]:
    """Show progress: a bar with rate and time left on a terminal, else a plain line every ten seconds.

    `unit` is what `done` counts; with unit "B" numbers read as bytes.
    """
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bar(description, unit) as callback:
            yield callback
    else:
        yield _lines(description, unit)


@contextlib.contextmanager
def _bar(description: str, unit: str) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(description, total=None, amount="", facts="")

        def show(done: float, total: float | None, facts: Mapping[str, float | str]) -> None:
            amount = _amount(done, total, unit, time.monotonic() - started)
            bar.update(task, completed=done, total=total, amount=amount, facts=_facts(facts))

        yield show


def _lines(description: str, unit: str) -> ProgressCallback:
    started = last = time.monotonic()

    def show(done: float, total: float | None, facts: Mapping[str, float | str]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = f", {(now - started) * (total - done) / done:.0f} s left" if total and done else ""
        say(f"{description}: {_amount(done, total, unit, now - started)}{left} {_facts(facts)}".rstrip())

    return show


def _amount(done: float, total: float | None, unit: str, seconds: float) -> str:
    rate = done / seconds if seconds > 0 else 0.0
    of = f" of {_quantity(total, unit)}" if total is not None else ""
    return f"{_quantity(done, unit)}{of}, {_quantity(rate, unit)}/s"


def _quantity(value: float, unit: str) -> str:
    if unit != "B":
        return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.2g} {unit}"
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {prefix}B"
        value /= 1000
    return f"{value:.3g} TB"


def _facts(facts: Mapping[str, float | str]) -> str:
    return " ".join(
        f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in facts.items()
    )
