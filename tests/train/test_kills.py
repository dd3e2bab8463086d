"""SIGKILL at random moments: the end is the same, bit for bit, on one rank and on two."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from durable.files import file_sha256
from tests.corpora import write_corpus
from tests.train.test_ranks import facts, said_by, start
from train.checkpoint import checkpoint_folder

EXACT = {"training__precision": '"bf16"', "runtime__micro_batch_size": 3, "checkpoint__every": 2}
KILLS = 3


def end_of(out: Path) -> tuple[object, ...]:
    names = ("model.safetensors", "optimizer.safetensors")
    return (facts(out), *(file_sha256(checkpoint_folder(out, 20) / name) for name in names))


def wait_for_first_row(out: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    while not (out / "metrics.jsonl").exists() and all(process.poll() is None for process in processes):
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_three_kills_at_random_moments_change_nothing(tmp_path: Path, ranks: int) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    moments = random.Random(ranks)
    run_to_its_end(start(corpus, tmp_path / "whole", ranks=ranks, **EXACT))
    killed = 0
    while killed < KILLS:
        processes = start(corpus, tmp_path / "run", ranks=ranks, **EXACT)
        wait_for_first_row(tmp_path / "run", processes)
        time.sleep(moments.uniform(0, 0.6))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        codes = [process.wait() for process in processes]
        [process.communicate() for process in processes]
        if codes[0] == 0:  # it had finished already: the machine was faster than the moment
            break
        killed += 1
    run_to_its_end(start(corpus, tmp_path / "run", ranks=ranks, **EXACT))
    assert killed
    assert end_of(tmp_path / "run") == end_of(tmp_path / "whole")


def run_to_its_end(processes: list[subprocess.Popen[bytes]]) -> None:
    said = said_by(processes)
    assert all(process.returncode == 0 for process in processes), "\n".join(said)
