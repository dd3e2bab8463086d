"""How symbert prepare scales with workers, local and on Ray, and what a unit costs beside its content.

python benchmarks/scale.py [--data ../shared/data] [--workers 1 2] [--engines local ray] [--runs 5] [--docs FILE]
python benchmarks/scale.py --driver 10000 20000

The shared corpus is cut anew into 24 files of equal size and given several times over, under other names. What counts
is the difference between runs with many and with few copies: start-up (of Python, of Ray, of workers) and the words
that a worker meets for the first time are the same in both and fall out; so nanotoken's caches are warm. What falls
out is printed as well. A unit's overhead is the same difference over files of one document. One worker is one thread.
--driver prints instead the CPU seconds of the driving process alone, over so many files of one document.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- benchmarks/scale.py writes from here -->", "<!-- to here -->"
FILES, FEW, MANY = 24, 2, 6
FEW_UNITS, MANY_UNITS = 24, 264
KEEP_ALL = (
    "--drop-categories", "none", "--drop-warnings", "none", "--missing-harmful-pp", "keep", "--harmful-pp", "0", "1e30",
)  # fmt: skip
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip
DRIVER = """
import resource, sys
from cli.main import run
code = run(sys.argv[1:])
print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Pair:
    """Seconds of two runs, the one with few copies and the one with many."""

    few: float
    many: float

    @property
    def difference(self) -> float:
        return self.many - self.few


def documents(source: Path) -> Iterator[bytes]:
    """The lines of all shards in order."""
    for path in sorted(source.glob("*.zst")):
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            yield from stream.read().splitlines(keepends=True)


def cut(source: Path, folder: Path) -> int:
    """Write FILES files with about the same number of bytes; returns how many bytes there are."""
    lines = list(documents(source))
    total, done = sum(map(len, lines)), 0
    parts: list[list[bytes]] = [[] for _ in range(FILES)]
    for line in lines:
        parts[min(done * FILES // total, FILES - 1)].append(line)
        done += len(line)
    folder.mkdir()
    for number, part in enumerate(parts):
        content = pa.Codec("zstd").compress(b"".join(part), asbytes=True)
        (folder / f"part_{number:02}.jsonl.zst").write_bytes(content)
    return total


def copies(files: Path, folder: Path, count: int) -> Path:
    """A folder that holds every file `count` times."""
    folder.mkdir()
    for number in range(count):
        for path in files.iterdir():
            os.link(path, folder / f"copy_{number}_{path.name}")
    return folder


def single(source: Path, folder: Path, count: int) -> Path:
    """A folder of `count` files, each with the first document."""
    folder.mkdir()
    content = pa.Codec("zstd").compress(next(documents(source)), asbytes=True)
    for number in range(count):
        (folder / f"part_{number:03}.jsonl.zst").write_bytes(content)
    return folder


def seconds(source: Path, out: Path, tokenizer: Path, engine: str, workers: int, *more: str) -> float:
    """What `symbert prepare` says it took."""
    taken: float = json.loads(prepare(["-m", "cli"], source, out, tokenizer, engine, workers, *more).stdout)["seconds"]
    return taken


def prepare(
    start: list[str], source: Path, out: Path, tokenizer: Path, engine: str, workers: int, *more: str
) -> subprocess.CompletedProcess[str]:
    """Run `symbert prepare`, which Python starts by `start`."""
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable, *start, "prepare", str(source), "--out", str(out), "--tokenizer", str(tokenizer),
        "--validation-samples", "0", "--engine", engine, "--workers", str(workers), "--quiet", "--json", "--no-report",
        *more,
    ]  # fmt: skip
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, encoding="utf-8", check=False
    )
    if result.returncode:
        raise SystemExit(f"{command} failed:\n{result.stderr}")
    return result


def measure_driver(data: Path, counts: list[int]) -> None:
    """Print the CPU seconds of the driver for so many files of one document, with and without a budget."""
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            files = single(data / "oscar2301/en_meta", Path(name) / "files", count)
            for budget in ([], ["--max-documents", str(count - 10)]):
                more = ["--sequence-length", "16", *KEEP_ALL, *budget]
                result = prepare(
                    ["-c", DRIVER], files, Path(name) / "out", data / "bert-base-uncased", "local", 1, *more
                )
                print(
                    f"{count:,} files {' '.join(budget)}: driver {float(result.stderr.split()[-1]):.2f} s of CPU",
                    flush=True,
                )


def measure(arguments: argparse.Namespace) -> tuple[dict[tuple[str, int], list[Pair]], dict[str, list[Pair]], float]:
    """Pairs of runs by engine and workers, the same over files of one document by engine, and the megabytes."""
    source, tokenizer = arguments.data / "oscar2301/en_meta", arguments.data / "bert-base-uncased"
    scaling: dict[tuple[str, int], list[Pair]] = {}
    units: dict[str, list[Pair]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        size = cut(source, scratch / "cut")
        few, many = (copies(scratch / "cut", scratch / f"{count}", count) for count in (FEW, MANY))
        little = single(source, scratch / "few", FEW_UNITS), single(source, scratch / "many", MANY_UNITS)
        for number in range(arguments.runs):
            for engine in arguments.engines:
                for workers in arguments.workers:
                    pair = Pair(*(seconds(data, scratch / "out", tokenizer, engine, workers) for data in (few, many)))
                    scaling.setdefault((engine, workers), []).append(pair)
                    print(f"run {number + 1}: {engine} {workers}: {pair.few:.2f} s, {pair.many:.2f} s", flush=True)
                short = ("--sequence-length", "16", *KEEP_ALL)
                pair = Pair(*(seconds(data, scratch / "out", tokenizer, engine, 1, *short) for data in little))
                units.setdefault(engine, []).append(pair)
                print(f"run {number + 1}: {engine} units: {pair.few:.2f} s, {pair.many:.2f} s", flush=True)
    return scaling, units, size / 1e6


def report(
    scaling: dict[tuple[str, int], list[Pair]], units: dict[str, list[Pair]], megabytes: float, runs: int
) -> list[str]:
    """The whole text."""
    processor = next(line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if "model name" in line)
    lines = [
        f"Input: {megabytes:.0f} MB of JSON lines in {FILES} .zst files, {FEW} and {MANY} times over. Machine: "
        f"{processor.partition(': ')[2]}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}; "
        f"medians of {runs} interleaved runs.",
        "",
        "| engine | workers | seconds a copy | MB/s | × one worker | start-up and first sight of words, s |",
        "|---|---|---|---|---|---|",
    ]
    one = {}
    for (engine, workers), pairs in scaling.items():
        copy = statistics.median(pair.difference for pair in pairs) / (MANY - FEW)
        left_out = statistics.median(pair.few for pair in pairs) - FEW * copy
        one.setdefault(engine, copy)
        rate, gain = megabytes / copy, one[engine] / copy
        lines.append(f"| {engine} | {workers} | {copy:.2f} | {rate:.1f} | {gain:.2f} | {left_out:.2f} |")
    for engine, pairs in units.items():
        each = statistics.median(pair.difference for pair in pairs) / (MANY_UNITS - FEW_UNITS)
        lines += ["", f"A unit of one document costs {each * 1000:.1f} ms ({engine}, one worker)."]
    return lines


def main() -> None:
    """Run everything, print the table, and write it into the docs if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--driver", type=int, nargs="+", metavar="FILES")
    arguments = parser.parse_args()
    if arguments.driver:
        measure_driver(arguments.data, arguments.driver)
        return
    lines = report(*measure(arguments), arguments.runs)
    print("\n".join(lines))
    if arguments.docs:
        before, _, after = arguments.docs.read_text("utf-8").partition(BEGIN)
        text = "\n".join([BEGIN, "", *lines, "", END])
        arguments.docs.write_text(before + text + after.partition(END)[2], "utf-8")


if __name__ == "__main__":
    main()
