"""symbert's own commands in a row or side by side, each a process of its own, just as a user would type them."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import typer

from cli.console import say
from durable.signals import EXIT_DONE, EXIT_QUARANTINED, StopRequest

SECONDS_BETWEEN_LOOKS = 0.1
# A corpus of which a few lines were put aside is a corpus.
FINISHED = frozenset({EXIT_DONE, EXIT_QUARANTINED})


@dataclass(frozen=True)
class Process:
    """A command at work; what it prints goes to a file, which takes however much it is."""

    popen: subprocess.Popen[bytes]
    stdout: IO[bytes]
    is_shown: bool

    @property
    def failed(self) -> bool:
        return self.popen.returncode not in FINISHED

    def printed(self) -> dict[str, Any]:
        """The one JSON document that it printed."""
        self.stdout.seek(0)
        document: dict[str, Any] = json.loads(self.stdout.read())
        return document


class Chain:
    """Runs commands, shows each as it starts, and ends with the exit code of the first that does not succeed.

    They must take --json, and --quiet where they are not the one that is shown.
    A stop request is handed on to the commands: each saves what it has, and exits with 75 or 130. So does the chain.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run one command; returns what it prints with --json."""
        return self.run_side_by_side([list(arguments)])[0]

    def run_side_by_side(
        self, commands: Sequence[Sequence[str]], *, at_once: int | None = None
    ) -> list[dict[str, Any]]:
        """Run commands, all or `at_once` at a time, with one thread each if that is several; one shows its progress.

        After one that does not succeed, those at work come to their end and none is begun.
        """
        with contextlib.ExitStack() as files, StopRequest() as stop:
            ended = self._run(commands, at_once or len(commands), files, stop)
            for number, process in sorted(ended.items()):
                if process.failed:
                    say(f"stopped at: {as_typed(commands[number])}")
                    raise typer.Exit(stop.exit_code if stop.requested else process.popen.returncode)
            if len(ended) < len(commands):
                raise typer.Exit(stop.exit_code)
            return [ended[number].printed() for number in range(len(commands))]

    def _run(
        self, commands: Sequence[Sequence[str]], at_once: int, files: contextlib.ExitStack, stop: StopRequest
    ) -> Mapping[int, Process]:
        """The processes that have ended, by their number among the commands."""
        waiting, running, ended, told = list(range(len(commands))), dict[int, Process](), dict[int, Process](), False
        threads = {"OMP_NUM_THREADS": "1"} if min(at_once, len(commands)) > 1 else {}
        while True:
            if stop.requested or any(process.failed for process in ended.values()):
                waiting.clear()
            while waiting and len(running) < at_once:
                shown = not self._quiet and not any(process.is_shown for process in running.values())
                running[waiting[0]] = self._start(commands[waiting[0]], threads, files, shown=shown)
                del waiting[0]
            if not running:
                return ended
            if stop.requested and not told:
                told = True
                _tell_to_stop(running.values())
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for number in [number for number, process in running.items() if process.popen.poll() is not None]:
                ended[number] = running.pop(number)

    def _start(
        self, arguments: Sequence[str], variables: Mapping[str, str], files: contextlib.ExitStack, *, shown: bool
    ) -> Process:
        if not self._quiet:
            say(f"$ {as_typed(arguments)}")
        # The same code as this process runs, and nothing that happens to lie in the working directory.
        code = str(Path(__file__).parents[1])
        path = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
        stdout = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        command = [sys.executable, "-P", "-m", "cli", *arguments, "--json", *([] if shown else ["--quiet"])]
        popen = subprocess.Popen(command, stdout=stdout, env={**os.environ, **variables, "PYTHONPATH": path})
        return Process(popen, stdout, shown)


def as_typed(arguments: Sequence[str]) -> str:
    """The command line as a user types it."""
    return shlex.join(["symbert", *arguments])


def _tell_to_stop(processes: Iterable[Process]) -> None:
    # Ctrl-C reaches them from the terminal too: SIGTERM beside it saves as well, a second SIGINT would not.
    for process in processes:
        process.popen.terminate()
