"""A seeded killer: workers, drivers, raylets and ranks die at random moments, and what comes out must not change.

    python -m tests.chaos --seconds 300 --seed 0 --log chaos.jsonl

Prepares a corpus by local workers and on Ray, trains a GLUE grid and trains a model on two ranks, each over and over
for its part of the time while the killer is about, and once more in peace at the end of it. Compares corpus hash,
cells and order of samples with those of undisturbed runs, and looks for processes and temporary files that are left.
Every kill is a line of the log. It goes on in a network namespace of its own, where no cluster can be reached.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
SECONDS_BETWEEN_KILLS = (0.3, 4.0)
INSIDE = "SYMBERT_CHAOS_INSIDE"


@dataclass
class Killer:
    """Kills one of the processes that `victims` names, every now and then, until its time is over."""

    seed: int
    log: Path
    ends: float = 0.0
    kills: int = 0
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def haunt(self, scenario: str, process: subprocess.Popen[Any], victims: Callable[[], dict[str, list[int]]]) -> None:
        """Until the process ends or the time is over."""
        while process.poll() is None and time.monotonic() < self.ends:
            waits = self.draw.uniform(*SECONDS_BETWEEN_KILLS)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(waits)
                return
            found = {kind: pids for kind, pids in victims().items() if pids}
            if not found:
                continue
            kind = self.draw.choice(sorted(found))
            self.kill(scenario, kind, self.draw.choice(sorted(found[kind])))

    def kill(self, scenario: str, kind: str, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            with self.log.open("a") as log:
                print(json.dumps({"time": time.time(), "scenario": scenario, "what": kind, "pid": pid}), file=log)


def descendants(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        yield from psutil.Process(pid).children(recursive=True)


def command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def symbert(arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    with (Path(arguments[arguments.index("--out") + 1]).parent / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments], cwd=ROOT, env=settings, stdout=said, stderr=said
        )


def workers_of(process: subprocess.Popen[bytes]) -> dict[str, list[int]]:
    """The driver, and those below its fork server, which is left alone: it holds no work."""
    forked = [child for child in descendants(process.pid) if "forkserver" in command_of(child)]
    parents = {child.pid for child in forked} & {child.ppid() for child in forked}
    return {"driver": [process.pid], "worker": [child.pid for child in forked if child.pid not in parents]}


@dataclass(frozen=True)
class Scenario:
    """Work that is done again and again under the killer, and what must come out of it."""

    name: str
    arguments: Callable[[Path], list[str]]
    outcome: Callable[[Path], Any]
    again: bool = True
    """Whether it is begun anew in an empty folder when it has ended; else it goes on."""


def finish(process: subprocess.Popen[bytes], scenario: Scenario) -> None:
    code = process.wait(600)
    assert code == 0, f"{scenario.name}: exit code {code} in peace"


def run_local(scenario: Scenario, folder: Path, killer: Killer, expected: Any) -> None:
    """Kill workers and the driver; the same command continues."""
    while True:
        out = folder / "out"
        process = symbert(scenario.arguments(out))
        killer.haunt(scenario.name, process, lambda: workers_of(process))  # noqa: B023 - called in this turn
        if process.poll() is None:
            finish(process, scenario)
        elif process.returncode and time.monotonic() >= killer.ends:
            finish(symbert(scenario.arguments(out)), scenario)
        if process.returncode and time.monotonic() < killer.ends:
            continue
        check(scenario, out, expected)
        if time.monotonic() >= killer.ends:
            return
        shutil.rmtree(out)


def check(scenario: Scenario, out: Path, expected: Any) -> None:
    found = scenario.outcome(out)
    assert found == expected, f"{scenario.name}: {found} instead of {expected}"
    left = [path for path in out.rglob("*") if ".partial-" in path.name or ".status" in path.parts]
    assert not left, f"{scenario.name} left {left}"


def run_ray(scenario: Scenario, folder: Path, killer: Killer, expected: Any) -> None:
    """Kill workers, drivers and the raylets of two nodes beside the head, which come back."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1") for _ in range(2)]
    out = folder / "out"

    def raylet_of(node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)

    def victims() -> dict[str, list[int]]:
        for number, node in enumerate(nodes):  # what was killed comes back, as a machine would
            if node.any_processes_alive() and not node.dead_processes():
                continue
            cluster.remove_node(node, allow_graceful=False)
            nodes[number] = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        workers = [child.pid for child in descendants(os.getpid()) if command_of(child).startswith("ray::_attend")]
        return {"Ray worker": workers, "raylet": [raylet_of(node) for node in nodes], "driver": [process.pid]}

    try:
        while True:
            arguments = [*scenario.arguments(out), "--engine", "ray", "--ray-address", cluster.address]
            process = symbert(arguments)
            killer.haunt(scenario.name, process, victims)
            over = time.monotonic() >= killer.ends
            if over:
                victims()  # the last that was killed is back
            if process.wait(600):
                if over:
                    finish(symbert(arguments), scenario)
                else:
                    continue
            check(scenario, out, expected)
            if time.monotonic() >= killer.ends:
                return
            shutil.rmtree(out)
    finally:
        cluster.shutdown()
