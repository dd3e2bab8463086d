"""The `symbert` command: a module per command, one place where exceptions become exit codes.

Exit codes: 0 done; 1 refused or failed; 2 the command line itself is wrong; 3 done, but something was quarantined
or found damaged; 75 everything saved, not finished; 130 Ctrl-C.
"""

import errno
import functools
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import (
    analyze,
    blocklists,
    demo,
    env,
    evaluate,
    export,
    glue,
    glue_compare,
    inspect,
    params,
    prepare,
    pretrain,
    push,
    report,
    reproduce,
    slurm,
    squad,
    status,
    tokenizer,
    verify,
)
from cli.console import print_error, say, show_what_can_be_shown
from cli.values import refuse_urls
from durable import __version__
from durable.errors import UnfinishedError
from durable.signals import EXIT_DONE, EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_UNFINISHED, EXIT_USAGE

OUR_PACKAGES = frozenset({"symbert", "blocklists", "oscar_prep", "train", "report", "durable", "cli"})
# What the machine refuses rather than what we got wrong: no traceback helps against a full disk.
MACHINE_REFUSALS = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
        errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP,
    }
)  # fmt: skip
# Of a path on the command line these are the user's to mend; of any other they are a fault of ours, with a traceback.
PATH_REFUSALS = frozenset({errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY})
# Typer carries its own copy of click; its public BadParameter leads to the base class of all usage errors.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"symbert {__version__}")
        raise typer.Exit


@app.callback()
def symbert(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """From the OSCAR web corpus to a GLUE table, for BERT models that differ only in their attention operator."""


# In the order in which a study needs them: so the help lists them.
app.command("demo")(demo.demo)
app.command("reproduce")(reproduce.reproduce)
app.command("prepare")(prepare.prepare)
app.command("verify")(verify.verify)
app.command("inspect")(inspect.inspect)
app.command("thresholds")(inspect.thresholds)
app.add_typer(blocklists.app, name="blocklists")
app.add_typer(tokenizer.tokenizer, name="tokenizer")
app.command("pretrain")(pretrain.pretrain)
app.command("evaluate")(evaluate.evaluate)
app.command("glue")(glue.glue)
app.command("glue-compare")(glue_compare.glue_compare)
app.command("squad")(squad.squad)
app.add_typer(slurm.app, name="slurm")
app.command("status")(status.status)
app.command("report")(report.report)
app.command("params")(params.params)
app.command("analyze")(analyze.analyze)
app.command("export")(export.export)
app.command("push")(push.push)
app.command("env")(env.env)


def main() -> None:
    """Run the command line and exit with its code."""
    show_what_can_be_shown()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Only an unexpected exception gets through."""
    try:
        _refuse_empty(arguments)
        return _command(app).main(arguments, prog_name="symbert", standalone_mode=False) or EXIT_DONE
    except USAGE_ERROR as error:
        return _wrong_command_line(error)
    except KeyboardInterrupt:
        say("error: interrupted")
        return EXIT_INTERRUPTED
    except typer.Abort:
        return EXIT_INTERRUPTED
    except UnfinishedError as error:
        print_error(error)
        return EXIT_UNFINISHED
    except ValueError as error:
        if type(error).__module__.partition(".")[0] not in OUR_PACKAGES:
            raise
        print_error(error)
    except OSError as error:
        given = _given_path(error, arguments) if error.errno in PATH_REFUSALS else None
        if error.errno not in MACHINE_REFUSALS and given is None:
            raise
        where = given or error.filename
        reason = "is a file, expected a folder" if error.errno == errno.EEXIST else error.strerror
        say(f"error: {where}: {reason}" if where else f"error: {reason}")
    return EXIT_REFUSED


@functools.cache
def _command(commands: typer.Typer) -> Any:
    command = typer.main.get_command(commands)
    _let_refuse_urls(command)
    return command


def _let_refuse_urls(command: Any) -> None:
    for part in getattr(command, "commands", {}).values():
        _let_refuse_urls(part)
    spelled = {p.name: p.opts[0] if p.opts[0].startswith("-") else p.metavar or p.name.upper() for p in command.params}
    command.callback = command.callback and refuse_urls(command.callback, spelled)


def _refuse_empty(arguments: list[str]) -> None:
    """An empty word, most often a shell variable that is not set, would be taken for the working folder."""
    for number, word in enumerate(arguments):
        before = arguments[number - 1] if number else ""
        option = before if not word else word.removesuffix("=") if word.endswith("=") else ""
        if not word or (option.startswith("--") and "=" not in option):
            error = typer.BadParameter(f"'{option}' is empty" if option.startswith("-") else "an argument is empty")
            error.add_note(f"symbert {arguments[0]} --help".replace("  ", " "))
            raise error


def _given_path(error: OSError, arguments: list[str]) -> Path | None:
    """The path that the error names, if it stands on the command line or a path there leads through it."""
    values = (word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in arguments)
    given = {folder for value in map(Path, values) for folder in (value, *value.parents)}
    named = [Path(name) for name in (error.filename2, error.filename) if isinstance(name, str | Path)]
    return next((path for path in named if path in given), None)


def _wrong_command_line(error: Exception) -> int:
    message = str(error.format_message() if hasattr(error, "format_message") else error)
    if message.startswith("Usage:"):
        # No command given: the error that Typer raises then carries the whole help as its message.
        say(message)
        return EXIT_USAGE
    # Click's word before all that names no option.
    message = message.removeprefix("Invalid value: ")
    context = getattr(error, "ctx", None)
    # How Typer's validation speaks of a value that is no choice, or out of range.
    message = message.replace(": Value error, ", ": ").replace(": Input should", ": it should")
    say(f"error: {message[:1].lower()}{message[1:].rstrip('.')}")
    hints = getattr(error, "__notes__", [f"{context.command_path if context else 'symbert'} --help"])
    for hint in hints:
        say(f"\nhint: {hint}")
    return EXIT_USAGE


if __name__ == "__main__":
    main()
