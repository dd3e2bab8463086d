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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from tests.ray_cluster import NAMESPACE

ROOT = Path(__file__).parents[1]
SECONDS_BETWEEN_KILLS = (0.5, 5.0)
INSIDE = "SYMBERT_CHAOS"
"""Marks the processes of one run."""
LOOPBACK = "127.0.0.1"


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
            kinds = sorted(found)
            kind = self.draw.choices(kinds, [1 if kind == "driver" else 4 for kind in kinds])[0]
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


def started(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A command of ours, what it says added to folder/said."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "said").open("ab") as said:
        return subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=settings, stdout=said, stderr=said)


def local_victims(process: subprocess.Popen[bytes]) -> dict[str, list[int]]:
    """The driver, and the workers: below the fork server, which holds no work."""
    forked = [child for child in descendants(process.pid) if "forkserver" in command_of(child)]
    servers = {child.pid for child in forked if child.ppid() == process.pid}
    return {"driver": [process.pid], "worker": [child.pid for child in forked if child.pid not in servers]}


def rank_victims(process: subprocess.Popen[bytes]) -> dict[str, list[int]]:
    return {"rank": [child.pid for child in descendants(process.pid) if "pretrain" in command_of(child)]}


class Nodes:
    """A Ray cluster of a head without processors and two nodes, which come back when they have been killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": LOOPBACK}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._new() for _ in range(2)]

    def _new(self) -> Any:
        return self.cluster.add_node(num_cpus=1, node_ip_address=LOOPBACK)

    def mend(self) -> None:
        for number, node in enumerate(self._nodes):
            if node.dead_processes():
                self.cluster.remove_node(node, allow_graceful=False)
                self._nodes[number] = self._new()

    def victims(self, process: subprocess.Popen[bytes]) -> dict[str, list[int]]:
        self.mend()
        workers = [child.pid for child in descendants(os.getpid()) if command_of(child).startswith("ray::_attend")]
        raylets = [node.all_processes["raylet"][0].process.pid for node in self._nodes]
        return {"Ray worker": workers, "raylet": raylets, "driver": [process.pid]}


@dataclass(frozen=True)
class Scenario:
    """Work that is done again and again under the killer, and what must come out of it."""

    name: str
    command: Callable[[Path], list[str]]
    """What python -m runs, from the output folder."""
    outcome: Callable[[Path], Any]
    victims: Callable[[subprocess.Popen[bytes]], dict[str, list[int]]]
    mend: Callable[[], None] = int  # nothing to mend


def run(scenario: Scenario, folder: Path, killer: Killer, expected: Any) -> None:
    """The same command until it succeeds, then anew in an empty folder; in peace when the killer's time is over."""
    out = folder / "out"
    while True:
        process = started(scenario.command(out), folder)
        killer.haunt(scenario.name, process, lambda: scenario.victims(process))  # noqa: B023 - called in this turn
        over = time.monotonic() >= killer.ends
        code = process.wait(600)
        if code and over:
            scenario.mend()
            code = started(scenario.command(out), folder).wait(600)
            assert not code, f"{scenario.name}: exit code {code} in peace\n{(folder / 'said').read_text()[-4000:]}"
        if code:
            continue
        found = scenario.outcome(out)
        assert found == expected, f"{scenario.name}: {found} instead of {expected}"
        left = [path for path in out.rglob("*") if ".partial-" in path.name or ".status" in path.parts]
        assert not left, f"{scenario.name} left {left}"
        if over:
            return
        shutil.rmtree(out)


def corpus_hash(out: Path) -> Any:
    return json.loads((out / "manifest.json").read_text())["corpus_hash"]


def cells(out: Path) -> Any:
    read = {str(path.relative_to(out)): json.loads(path.read_text()) for path in out.glob("cells/*/*.json")}
    return {name: {key: value for key, value in cell.items() if key != "timing"} for name, cell in read.items()}


def sample_order(run: Path) -> Any:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["samples"]) for row in rows if row["kind"] == "train"]


def write_inputs(folder: Path) -> None:
    """Twelve shards in OSCAR's form, a tokenizer, a packed corpus, a GLUE task and a checkpoint; all small and real."""
    import torch

    from symbert import SymbertConfig, SymbertForMaskedLM
    from tests.corpora import write_corpus
    from tests.train.glue.conftest import WORDS, save_tokenizer, write_tsv

    write_corpus(folder / "corpus")
    draw = random.Random(1)
    for part in range(12):
        lines = []
        for number in range(draw.randrange(200, 2000)):
            content = " ".join(f"w{draw.randrange(90)}" for _ in range(draw.randrange(200)))
            header = {"warc-record-id": f"<{part}-{number}>", "warc-target-uri": f"https://example.org/{number}"}
            metadata = {"harmful_pp": 500.0, "quality_warnings": None, "categories": None}
            lines.append(json.dumps({"content": content, "warc_headers": header, "metadata": metadata}))
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in" / f"part_{part}.jsonl").write_text("\n".join(lines) + "\n")
    pairs = [
        [str(number), f"the {WORDS[2 + number % 4]} sees", f"a {WORDS[2 + number // 4 % 4]} hears",
         "entailment" if number % 3 else "not_entailment"]
        for number in range(60)
    ]  # fmt: skip
    for name, rows in (("train.tsv", pairs[:50]), ("dev.tsv", pairs[40:])):
        write_tsv(folder / "glue" / "RTE" / name, [["index", "sentence1", "sentence2", "label"], *rows])
    torch.manual_seed(0)
    configuration = SymbertConfig(
        vocab_size=23, hidden_size=21, num_attention_heads=3, num_hidden_layers=2, intermediate_size=34,
        max_position_embeddings=32,
    )  # fmt: skip
    SymbertForMaskedLM(configuration).save_pretrained(folder / "checkpoint")
    save_tokenizer(folder / "checkpoint")


def prepare_command(inputs: Path, out: Path, *more: str) -> list[str]:
    return [
        "cli", "prepare", str(inputs / "in"), "--out", str(out), "--tokenizer", str(inputs / "corpus/tokenizer"),
        "--sequence-length", "64", "--validation-samples", "10", "--validation-share", "0.05", "--no-report", *more,
    ]  # fmt: skip


def glue_command(inputs: Path, out: Path, *more: str) -> list[str]:
    return [
        "cli", "glue", str(inputs / "checkpoint"), "--data-dir", str(inputs / "glue"), "--out", str(out),
        "--tasks", "rte", "--seeds", "4", "--set", "epochs=2", "--device", "cpu", *more,
    ]  # fmt: skip


def pretrain_command(inputs: Path, out: Path) -> list[str]:
    from tests.train.tiny import tiny_assignments

    settings = [word for text in tiny_assignments(schedule__max_steps=60) for word in ("--set", text)]
    return [
        "cli", "pretrain", "--data", str(inputs / "corpus"), "--out", str(out), "--operator", "pairwise",
        "--device", "cpu", *settings,
    ]  # fmt: skip


RANKS = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def scenarios(inputs: Path, nodes: Nodes | None) -> list[Scenario]:
    found = [
        Scenario("prepare", lambda out: prepare_command(inputs, out, "--workers", "2"), corpus_hash, local_victims),
        Scenario("glue", lambda out: glue_command(inputs, out, "--workers", "2"), cells, local_victims),
        Scenario("pretrain", lambda out: [*RANKS, *pretrain_command(inputs, out)], sample_order, rank_victims),
    ]
    if nodes is not None:
        cluster = ("--engine", "ray", "--ray-address", nodes.cluster.address)
        found += [
            Scenario(
                "prepare on Ray", lambda out: prepare_command(inputs, out, *cluster), corpus_hash, nodes.victims,
                nodes.mend,
            ),
            Scenario("glue on Ray", lambda out: glue_command(inputs, out, *cluster), cells, nodes.victims, nodes.mend),
        ]  # fmt: skip
    return found


def undisturbed(inputs: Path) -> dict[Any, Any]:
    """What the outcomes must be, from one process each."""
    commands = {
        corpus_hash: prepare_command(inputs, inputs / "prepared", "--workers", "1"),
        cells: glue_command(inputs, inputs / "trained", "--workers", "1"),
        sample_order: pretrain_command(inputs, inputs / "run"),
    }
    expected = {}
    for outcome, command in commands.items():
        assert started(command, inputs).wait(600) == 0, (inputs / "said").read_text()[-4000:]
        expected[outcome] = outcome(Path(command[command.index("--out") + 1]))
    return expected


def unleash(seconds: float, seed: int, log: Path) -> int:
    """All scenarios, one after the other, each for its part of the time; returns how many were killed."""
    ray_is_there = find_spec("ray") is not None
    killer = Killer(seed, log)
    with tempfile.TemporaryDirectory(prefix="symbert-chaos-") as name:
        inputs = Path(name)
        write_inputs(inputs)
        expected = undisturbed(inputs)
        nodes = Nodes() if ray_is_there else None
        chosen = scenarios(inputs, nodes)
        for number, scenario in enumerate(chosen):
            folder = inputs / f"scenario-{number}"
            folder.mkdir()
            killer.ends = time.monotonic() + seconds / len(chosen)
            run(scenario, folder, killer, expected[scenario.outcome])
        if nodes is not None:
            nodes.cluster.shutdown()
    assert len(log.read_text(encoding="utf-8").splitlines()) == killer.kills, "a kill is not in the log"
    left = strays()
    assert not left, f"left running: {left}"
    return killer.kills


def strays() -> list[str]:
    """Processes of this run beside this one; a moment is left to those that are ending."""
    mark = f"{INSIDE}={os.environ[INSIDE]}".encode()
    for _ in range(100):
        found = [pid for pid in psutil.pids() if pid != os.getpid() and mark in _environment(pid)]
        if not found:
            return []
        time.sleep(0.1)
    return [command_of(psutil.Process(pid)) for pid in found if psutil.pid_exists(pid)]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("chaos.jsonl"))
    chosen = parser.parse_args()
    if INSIDE not in os.environ:
        environment = {
            **os.environ, INSIDE: f"{os.getpid()}-{time.time_ns()}", "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "chaos" * 8,
        }  # fmt: skip
        command = [*NAMESPACE, sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode
    chosen.log.unlink(missing_ok=True)
    chosen.log.touch()
    kills = unleash(chosen.seconds, chosen.seed, chosen.log)
    print(f"{kills} killed in {chosen.seconds:g} s with seed {chosen.seed}, nothing lost: {chosen.log}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
