"""How the processes of a run part: the wrapper of the model goes first, or they may wait for each other for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpora import write_corpus
from tests.train.test_ranks import ROOT, free_port
from tests.train.tiny import tiny_assignments


def ranks_of(*arguments: str, timeout: float, port: int = 0) -> list[str]:
    """What two ranks of tests/train/rank_ends.py print; those that do not end are killed, and fail the test."""
    ours = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.rank_ends", *arguments],
            cwd=ROOT,
            env=os.environ | ours | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), "wrappers 0\n"),
        pytest.param(("runtime__compile=true", "schedule__max_steps=4"), "wrappers 0\n", marks=pytest.mark.long),
        (("optimizer__learning_rate=1e30",), "wrappers 0\nstep 3\n"),
    ],
    ids=["finished", "compiled", "failed"],
)
def test_no_wrapper_is_left_when_the_process_group_is_destroyed(
    tmp_path: Path, changes: tuple[str, ...], expected: str
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    assert ranks_of("watch", str(corpus), str(tmp_path / "run"), *changes, timeout=300) == [expected] * 2


@pytest.mark.slow
def test_no_wrapper_is_left_after_an_exception_within_it() -> None:
    assert ranks_of("fail", timeout=300) == ["wrappers 0\nrefused\n"] * 2


@pytest.mark.slow
def test_torchrun_of_two_ranks_returns(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    settings = [word for text in tiny_assignments(schedule__max_steps=4) for word in ("--set", text)]
    ended = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cli",
            "pretrain", "--data", str(corpus), "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet", *settings,
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0
    assert "finished" in ended.stdout


@pytest.mark.long
def test_ranks_join_and_leave_two_hundred_times_in_one_process(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    said = ranks_of("loop", str(corpus), "200", timeout=600, port=free_port() // 200 * 200)
    assert [text.splitlines()[-1] for text in said] == ["left 199"] * 2
