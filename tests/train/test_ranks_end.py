"""How the processes of a run wait for each other, and part: a wrapper left behind may keep them for ever."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpora import write_corpus
from tests.train.test_ranks import ROOT, free_port
from tests.train.tiny import tiny_assignments


def ranks_of(*arguments: str, timeout: float, count: int = 2, port: int = 0, killed: int | None = None) -> list[str]:
    """What the ranks of tests/train/rank_ends.py print; those that do not end are killed, and fail the test.

    Rank `killed` kills itself; all others end well.
    """
    ours = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.rank_ends", *arguments],
            cwd=ROOT,
            env=os.environ | ours | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [-9 if rank == killed else 0 for rank in range(count)], said
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("train", ["trained\n"] * 2),
        ("refuse", ["damaged\n", "rank 1 ends, for another rank has refused to train: see what it says\n"]),
    ],
)
def test_a_first_rank_that_works_longer_than_an_exchange_may_take_does_not_end_the_run(
    tmp_path: Path, then: str, expected: list[str]
) -> None:
    assert ranks_of("wait", str(write_corpus(tmp_path)), then, timeout=120) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "expected"),
    [(0, r"rank 1 ends, for it no longer hears from another rank: .+\n"), (1, r"rank 0 ends, .* 0:00:03 for rank 1\n")],
)
def test_a_rank_that_dies_while_others_wait_ends_them_too(tmp_path: Path, killed: int, expected: str) -> None:
    said = ranks_of("wait", str(tmp_path), "other" if killed else "first", timeout=60, killed=killed)
    assert said[killed] == ""
    assert re.fullmatch(expected, said[1 - killed])


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
def test_three_ranks_add_the_gradients_of_their_first_step_in_the_order_of_later_ones(tmp_path: Path) -> None:
    # Two would add alike in any order.
    said = ranks_of("again", str(write_corpus(tmp_path)), timeout=120, count=3)
    assert said == ["40 0\n"] * 3


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
