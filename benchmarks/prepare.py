"""symbert prepare beside datatrove and a plain loop: same shards, same filters, same tokens; interleaved runs.

python benchmarks/prepare.py --datatrove PYTHON [--data ../shared/data] [--runs 5] [--cores N] [--docs FILE]

PYTHON is that of an environment with datatrove 0.10.0, orjson, zstandard, regex and the project's pyarrow and
tokenizers (no torch). Every run is a fresh process that starts with empty caches (cold); the warm rate is what a
second copy of the input adds. With one worker everything runs in one thread. The ratios of medians are what counts:
seconds depend on the machine and on who else uses it, seconds of CPU less so.

Beside its peers symbert is measured against a loop that does its inner part with the same libraries, without ledger,
hashes and faults: with what it takes for a single line, two interpreters and their imports, that loop is the floor.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[1]
SAMPLES = "d0f902005a2f17d1011c4a06c3cb1912d2a070a84fee9bc4b6eac59ae920c324"
BEGIN, END = "<!-- benchmarks/prepare.py writes from here -->", "<!-- to here -->"


@dataclass(frozen=True)
class Run:
    """One run: wall-clock seconds, seconds of CPU, and the peak memory of its largest process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measured(command: list[str], workers: int, variables: Mapping[str, str] | None = None) -> Run:
    """Run a command and measure it with all of its children; one worker is one thread."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **(variables or {})}
    if workers == 1:
        environment |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    peaks: dict[int, int] = {}
    cpu: dict[int, float] = {}
    while process.poll() is None:
        watch(process.pid, peaks, cpu)
        time.sleep(0.02)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{process.stderr.read().decode() if process.stderr else ''}")
    return Run(seconds, sum(cpu.values()), max(peaks.values()))


def watch(session: int, peaks: dict[int, int], cpu: dict[int, float]) -> None:
    """Note the peak memory and the CPU time so far of every process of a session."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, ProcessLookupError, StopIteration):
            fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                number = int(entry.name)
                cpu[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                status = (entry / "status").read_text("utf-8").splitlines()
                peaks[number] = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


def check(rows: np.ndarray, who: str) -> None:
    """The samples are those of the reference, or the comparison is void."""
    digest = hashlib.sha256(np.ascontiguousarray(rows, "<u2").tobytes()).hexdigest()
    if digest != SAMPLES:
        raise SystemExit(f"{who} made other samples: {digest}")


def rows_of_symbert(out: Path) -> np.ndarray:
    """All training rows of a corpus."""
    from oscar_prep.shards import read_rows

    return np.concatenate([rows for path in sorted((out / "train").glob("*.arrow")) for rows in read_rows(path, 512)])


def rows_of_loop(out: Path) -> np.ndarray:
    """All rows that the loop saved."""
    return np.concatenate([np.load(path) for path in sorted(out.glob("*.npy"))])


def rows_of_datatrove(out: Path, tokens_by_file: list[int]) -> np.ndarray:
    """datatrove's stream, cut into rows file by file as the others do."""
    stream = np.concatenate([np.fromfile(path, "<u2") for path in sorted((out / "tokens").glob("*.ds"))])
    if len(stream) != sum(tokens_by_file):
        raise SystemExit(f"datatrove made {len(stream)} tokens, expected {sum(tokens_by_file)}")
    parts = np.split(stream, np.cumsum(tokens_by_file)[:-1])
    return np.concatenate([part[: len(part) // 512 * 512].reshape(-1, 512) for part in parts])


class Contest:
    """The contestants over one folder of shards."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.source = arguments.data / "oscar2301/en_meta"
        self.tokenizer = arguments.data / "bert-base-uncased"
        self.files = sorted(self.source.glob("*.zst"))
        self.datatrove_python = arguments.datatrove
        self.scratch = scratch
        self.twice = scratch / "twice"
        self.twice.mkdir()
        for copy in ("a", "b"):
            for path in self.files:
                shutil.copyfile(path, self.twice / f"{copy}_{path.name}")
        self.line = scratch / "line"
        self.line.mkdir()
        metadata = {"harmful_pp": 100.0, "quality_warnings": None, "categories": None}
        (self.line / "one.jsonl").write_text(json.dumps({"content": "one line " * 20, "metadata": metadata}), "utf-8")

    def prepare(self, name: str, source: Path, workers: int, *more: str) -> Run:
        """`symbert prepare` into a fresh folder of that name."""
        command = [
            sys.executable, "-m", "cli", "prepare", source, "--out", self.fresh(name), "--tokenizer", self.tokenizer,
            "--validation-samples", "0", "--workers", workers, "--quiet", "--json", *more,
        ]  # fmt: skip
        return measured([str(part) for part in command], workers)

    def symbert(self, workers: int) -> Run:
        """The corpus alone."""
        run = self.prepare("symbert", self.source, workers, "--no-report")
        check(rows_of_symbert(self.scratch / "symbert"), "symbert")
        return run

    def symbert_page(self, workers: int) -> Run:
        """With report.html, which no peer draws."""
        return self.prepare("symbert page", self.source, workers)

    def symbert_line(self, workers: int) -> Run:
        """A single document: what two interpreters and their imports take."""
        more = ("--no-report", "--sequence-length", "16")
        return self.prepare("symbert line", self.line, workers, *more)

    def symbert_twice(self, workers: int) -> Run:
        """The input given twice under other names: the second half meets warm caches."""
        return self.prepare("symbert twice", self.twice, workers, "--no-report")

    def loop(self, workers: int, script: str = "prepare_loop.py") -> Run:
        """A plain loop, one process a worker over its share of the files."""
        out = self.fresh("loop")
        out.mkdir()
        command = [sys.executable, f"benchmarks/{script}", self.tokenizer, out]
        if workers == 1:
            run = measured([str(part) for part in [*command, *self.files]], workers)
        else:
            files = " ".join(f"'{path}'" for path in self.files)
            shell = f"printf '%s\\n' {files} | xargs -P {workers} -n 1 {' '.join(map(str, command))}"
            run = measured(["sh", "-c", shell], workers)
        check(rows_of_loop(out), script)
        return run

    def datatrove(self, workers: int) -> Run:
        """datatrove's own executor."""
        out = self.fresh("datatrove")
        tasks = 1 if workers == 1 else len(self.files)
        command = [
            self.datatrove_python, "benchmarks/prepare_datatrove.py", self.tokenizer, out, self.source,
            workers, tasks,
        ]  # fmt: skip
        run = measured([str(part) for part in command], workers)
        manifest = json.loads((self.scratch / "symbert/manifest.json").read_text("utf-8"))
        check(rows_of_datatrove(out, [unit["ledger"]["tokens"] for unit in manifest["units"]]), "datatrove")
        return run

    def floor(self, workers: int) -> Run:
        """The loop with symbert's own libraries."""
        return self.loop(workers, "prepare_msgspec.py")

    def fresh(self, name: str) -> Path:
        """An output folder that does not exist."""
        shutil.rmtree(self.scratch / name, ignore_errors=True)
        return self.scratch / name


def interleaved(contestants: dict[str, Callable[[int], Run]], workers: int, runs: int) -> dict[str, list[Run]]:
    """Every contestant once, then all again, so that a busy minute of the machine hits all alike."""
    results: dict[str, list[Run]] = {name: [] for name in contestants}
    for number in range(runs):
        for name, contestant in contestants.items():
            run = contestant(workers)
            results[name].append(run)
            print(
                f"workers {workers}, run {number + 1}: {name:<25} {run.seconds:7.2f} s {run.cpu_seconds:7.2f} s CPU "
                f"{run.peak_bytes / 1e6:6.0f} MB",
                flush=True,
            )
    return results


def median(runs: list[Run], field: str) -> float:
    """The median of one measure."""
    return statistics.median(getattr(run, field) for run in runs)


def table(results: dict[str, list[Run]], megabytes: float) -> list[str]:
    """A Markdown table of medians with ratios to symbert."""
    base = {field: median(results["symbert"], field) for field in ("seconds", "cpu_seconds")}
    lines = [
        "| | seconds | × symbert | CPU seconds | × symbert | MB/s | peak memory of a process |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        seconds, cpu = median(runs, "seconds"), median(runs, "cpu_seconds")
        lines.append(
            f"| {name} | {seconds:.2f} | {seconds / base['seconds']:.2f} | {cpu:.2f} | "
            f"{cpu / base['cpu_seconds']:.2f} | {megabytes / seconds:.1f} | "
            f"{max(run.peak_bytes for run in runs) / 1e6:.0f} MB |"
        )
    return lines


def main() -> None:
    """Run everything, print the tables, and write them into the docs if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datatrove", required=True, help="python of an environment with datatrove")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--docs", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        contest = Contest(arguments, Path(scratch))
        megabytes = sum(
            len(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()) for path in contest.files
        ) / 1e6  # fmt: skip
        everyone = {
            "symbert": contest.symbert,
            "symbert, input twice": contest.symbert_twice,
            "symbert, with the page": contest.symbert_page,
            "symbert, one line": contest.symbert_line,
            "plain loop": contest.loop,
            "datatrove": contest.datatrove,
            "msgspec + nanotoken loop": contest.floor,
        }
        one = interleaved(everyone, 1, arguments.runs)
        fewer = {name: run for name, run in everyone.items() if not name.startswith("symbert,")}
        more = interleaved(fewer, arguments.cores, arguments.runs) if arguments.cores > 1 else {}
    lines = report(one, more, megabytes, arguments)
    print("\n".join(lines))
    if arguments.docs:
        before, _, after = arguments.docs.read_text("utf-8").partition(BEGIN)
        text = "\n".join([BEGIN, "", *lines, "", END])
        arguments.docs.write_text(before + text + after.partition(END)[2], "utf-8")


def report(
    one: dict[str, list[Run]], more: dict[str, list[Run]], megabytes: float, arguments: argparse.Namespace
) -> list[str]:
    """The whole text."""
    warm = {
        field: statistics.median(
            getattr(twice, field) - getattr(once, field)
            for twice, once in zip(one["symbert, input twice"], one["symbert"], strict=True)
        )
        for field in ("seconds", "cpu_seconds")
    }
    page = {field: median(one["symbert, with the page"], field) - median(one["symbert"], field) for field in warm}
    least = {
        name: median(one["msgspec + nanotoken loop"], name) + median(one["symbert, one line"], name) for name in warm
    }
    floor = {field: median(one["symbert"], field) / seconds for field, seconds in least.items()}
    peers = {name: {field: median(one[name], field) for field in warm} for name in ("plain loop", "datatrove")}
    processor = next(line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if "model name" in line)
    lines = [
        f"Input: 11,059 documents, {megabytes:.0f} MB of JSON lines in six .zst files; 17,966,769 tokens, "
        "checked equal sample by sample.",
        f"Machine: {processor.partition(': ')[2]}, {os.cpu_count()} CPUs, Python {platform.python_version()}; "
        f"medians of {arguments.runs} interleaved runs, every run a fresh process.",
        "",
        "One worker, one thread:",
        "",
        *table(one, megabytes),
        "",
        f"With the page symbert takes {page['seconds']:.2f} s, {page['cpu_seconds']:.2f} s CPU more. It takes "
        f"{floor['seconds']:.2f}× the time and {floor['cpu_seconds']:.2f}× the CPU of the msgspec + nanotoken loop and "
        "the start-up together.",
        "",
        f"With warm caches (what the second copy of the input adds): {warm['seconds']:.2f} s, "
        f"{warm['cpu_seconds']:.2f} s CPU, {megabytes / warm['seconds']:.1f} MB/s; "
        + ", ".join(
            f"{name} takes {times['seconds'] / warm['seconds']:.1f}× the time and "
            f"{times['cpu_seconds'] / warm['cpu_seconds']:.1f}× the CPU"
            for name, times in peers.items()
        )
        + ".",
    ]
    return [*lines, "", f"{arguments.cores} workers:", "", *table(more, megabytes)] if more else lines


if __name__ == "__main__":
    main()
