"""symbert's own commands in a row or side by side, each a process of its own, just as a user would type them."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from cli.console import say
from durable.signals import EXIT_DONE, StopRequest

SECONDS_BETWEEN_LOOKS = 0.1


class Chain:
    """Runs commands, shows each before it starts, and ends with the exit code of the first that does not succeed.

    A stop request is handed on to the commands: each saves what it has, and exits with 75 or 130. So does the chain.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run one command; returns what it prints with --json."""
        return self.run_side_by_side([list(arguments)])[0]

    def run_side_by_side(self, commands: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Run commands at once, one thread each if there are several; the first of them shows its progress."""
        if not self._quiet:
            for arguments in commands:
                say(f"$ {as_typed(arguments)}")
        with StopRequest() as stop:
            processes = [
                self._start(arguments, quiet=self._quiet or number > 0, alone=len(commands) == 1)
                for number, arguments in enumerate(commands)
            ]
            printed = _wait(processes, stop)
        for process, arguments in zip(processes, commands, strict=True):
            if process.returncode != EXIT_DONE:
                say(f"stopped at: {as_typed(arguments)}")
                raise typer.Exit(stop.exit_code if stop.requested else process.returncode)
        return [json.loads(text) for text in printed]

    def _start(self, arguments: Sequence[str], *, quiet: bool, alone: bool) -> subprocess.Popen[bytes]:
        # The same code as this process runs, and nothing that happens to lie in the working directory.
        code = str(Path(__file__).parents[1])
        path = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, **({} if alone else {"OMP_NUM_THREADS": "1"})}
        options = ["--json", *(["--quiet"] if quiet else [])]
        command = [sys.executable, "-P", "-m", "cli", *arguments, *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def as_typed(arguments: Sequence[str]) -> str:
    """The command line as a user types it."""
    return shlex.join(["symbert", *arguments])


def _wait(processes: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> list[bytes]:
    """What the processes print, once all have ended; each is told once of a stop request."""
    told = False
    printed = []
    for process in processes:
        while True:
            try:
                printed.append(process.communicate(timeout=SECONDS_BETWEEN_LOOKS)[0])
                break
            except subprocess.TimeoutExpired:
                if stop.requested and not told:
                    told = True
                    _tell_to_stop(processes)
    return printed


def _tell_to_stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    # Ctrl-C reaches them from the terminal too: SIGTERM beside it saves as well, a second SIGINT would not.
    for process in processes:
        process.terminate()
