"""The peak memory of a worker of `symbert prepare` on inputs that are hard to hold.

python benchmarks/prepare_memory.py [--data ../shared/data] [--only NAME ...] [--without-nanotoken]

Every input is made here but the English, which is the shards of --data. Figures are VmHWM of the largest process.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prepare import ROOT, measured

KEEP_ALL = ("--missing-harmful-pp", "keep")


def lines(folder: Path, texts: Iterable[str]) -> Path:
    """A folder with one file of JSON lines."""
    folder.mkdir()
    with (folder / "part.jsonl").open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"content": text}, ensure_ascii=False) + "\n")
    return folder


def parquet(folder: Path) -> Path:
    """150,000 rows of a few words, then 160 of 5.4 MB: sorted by length."""
    folder.mkdir()
    tiny = [f"the quick brown fox {number}" for number in range(150_000)]
    long = ["the quick brown fox jumps " * 207_692 + str(number) for number in range(160)]
    pq.write_table(pa.table({"content": [*tiny, *long]}), folder / "part.parquet")
    return folder


def chinese(folder: Path) -> Path:
    """One document of 31 MB without a space."""
    codes = np.random.default_rng(0).integers(0x4E00, 0x9FFF, 31_000_000 // 3, np.uint32)
    return lines(folder, [codes.tobytes().decode("utf-32-le")])


def punctuation(folder: Path) -> Path:
    """One document of 31 MB, every byte a token."""
    marks = np.frombuffer(b".,;:!?", np.uint8)
    return lines(folder, [marks[np.random.default_rng(0).integers(0, 6, 31_000_000)].tobytes().decode()])


def words(folder: Path) -> Path:
    """131 MB of words that hardly ever come twice, in documents of 1 MB."""
    draw = np.random.default_rng(0)
    letters = (draw.integers(97, 123, 1 << 20).astype(np.uint8) for _ in range(131))
    return lines(
        folder,
        (np.where(draw.random(1 << 20) < 0.12, 32, part).astype(np.uint8).tobytes().decode() for part in letters),
    )


INPUTS: dict[str, Callable[[Path], Path]] = {
    "Parquet sorted by length": parquet,
    "one document of Chinese": chinese,
    "one document of punctuation": punctuation,
    "distinct words": words,
}


def main() -> None:
    """Measure and print a line for each input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--only", nargs="+", choices=[*INPUTS, "English"], default=[*INPUTS, "English"])
    parser.add_argument("--without-nanotoken", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if arguments.without_nanotoken:
            (scratch / "path").mkdir()
            (scratch / "path/nanotoken.py").write_text("raise ImportError('left out')\n", "utf-8")
        for number, what in enumerate(arguments.only):
            english = arguments.data / "oscar2301/en_meta"
            source = english if what == "English" else INPUTS[what](scratch / f"in{number}")
            command = [
                sys.executable, "-m", "cli", "prepare", source, "--out", scratch / f"out{number}", "--no-report",
                "--tokenizer", arguments.data / "bert-base-uncased", "--validation-samples", "0", "--workers", "1",
                "--quiet", *(KEEP_ALL if what != "English" else ()),
            ]  # fmt: skip
            path = os.pathsep.join([str(scratch / "path"), str(ROOT)])
            run = measured([str(part) for part in command], 1, {"PYTHONPATH": path})
            print(f"{what:<30} {run.peak_bytes / 1e6:7.0f} MB {run.cpu_seconds:7.2f} s CPU", flush=True)


if __name__ == "__main__":
    main()
