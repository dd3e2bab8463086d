"""A whole study in small, made by the commands themselves: corpus, runs of two operators and a control, GLUE."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cli.main import run
from tests.train.glue.conftest import WORDS, glue, save_tokenizer  # noqa: F401 - a fixture and what made its words
from tests.train.tiny import TINY

RUNS = {
    "original-1": ("original", 1, "normal"),
    "original-2": ("original", 2, "normal"),
    "pairwise-1": ("pairwise", 1, "normal"),
    "pairwise-scaled": ("pairwise", 1, "scaled"),
}


@dataclass(frozen=True)
class Study:
    """The folders that `symbert report` reads."""

    corpus: Path
    runs: tuple[Path, ...]
    glue: Path

    def arguments(self, out: Path, *more: object) -> list[str]:
        folders = ["--corpus", self.corpus, "--glue", self.glue, "--out", out]
        return ["report", *(str(word) for word in (*self.runs, *folders, *more))]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, glue: Path) -> Study:  # noqa: F811
    folder = tmp_path_factory.mktemp("study")
    corpus = _corpus(folder)
    runs = tuple(_run(folder, corpus, name, *settings) for name, settings in RUNS.items())
    checkpoints = [runs[0], *(runs[2] / "checkpoints" / f"step-{step:08d}" for step in (6, 20))]
    command = [
        "glue", *map(str, checkpoints), "--data-dir", str(glue), "--out", str(folder / "glue"), "--tasks", "cola",
        "--seeds", "2", "--set", "epochs=1", "--set", "learning_rate=0.01", "--device", "cpu", "--workers", "1",
        "--quiet",
    ]  # fmt: skip
    assert run(command) == 0
    return Study(corpus, runs, folder / "glue")


def _corpus(folder: Path) -> Path:
    """120 documents, 30 of which fail one rule each, in a shard whose name would be markup if it were not escaped."""
    draw = random.Random(1)
    lines = []
    for number in range(120):
        metadata = {"harmful_pp": 500.0, "quality_warnings": None, "categories": None}
        metadata |= (
            {0: {"categories": ["adult"]}, 4: {"harmful_pp": 2.0}, 8: {"quality_warnings": ["tiny"]}}
        ).get(number % 12, {})  # fmt: skip
        headers = {"warc-record-id": f"<urn:uuid:{number:08}>", "warc-target-uri": f"https://example.org/{number}"}
        content = " ".join(draw.choice(WORDS) for _ in range(60))
        lines.append(json.dumps({"content": content, "warc_headers": headers, "metadata": metadata}) + "\n")
    shard = folder / "en_<b>.jsonl"
    shard.write_text("".join(lines), "utf-8")
    save_tokenizer(folder / "tokenizer")
    command = [
        "prepare", str(shard), "--out", str(folder / "corpus"), "--tokenizer", str(folder / "tokenizer"),
        "--sequence-length", "32", "--validation-samples", "8", "--validation-share", "0.2", "--workers", "1",
        "--no-report", "--quiet",
    ]  # fmt: skip
    assert run(command) == 0
    return folder / "corpus"


def _run(folder: Path, corpus: Path, name: str, operator: str, seed: int, init: str) -> Path:
    vocabulary = json.loads((corpus / "manifest.json").read_text("utf-8"))["tokenizer"]["vocabulary_size"]
    settings = TINY | {
        "model.vocab_size": vocabulary,
        "model.pairwise_init": init,
        "training.seed": seed,
        "evaluation.every": 2,
        "checkpoint.keep": "all",
    }
    assignments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    out = folder / "runs" / name
    command = ["pretrain", "--data", str(corpus), "--out", str(out), "--operator", operator, *assignments, "--quiet"]
    assert run(command) == 0
    return out
