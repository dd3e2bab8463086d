import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import HashStore

from durable.files import file_sha256
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments, tiny_recipe
from train.checkpoint import checkpoint_folder
from train.data import TrainingOrder
from train.errors import TrainError
from train.metrics import read_metrics
from train.pretrain import pretrain
from train.ranks import Ranks, joined, rank_settings
from train.run import Stop

ROOT = Path(__file__).parents[2]
GPU = torch.device("cuda", 0)
CLOCK = {"tokens_per_second", "minutes"}
NO_DROPOUT = {"model__hidden_dropout_prob": 0.0, "model__attention_probs_dropout_prob": 0.0}


@pytest.mark.parametrize(("samples", "count"), [(8, 2), (8, 3), (2, 4), (256, 7)])
def test_the_shares_of_the_ranks_are_the_whole_batch(samples: int, count: int) -> None:
    shares = [Ranks(number, count).share(samples) for number in range(count)]
    assert [share[0] for share in shares] + [samples] == [0, *(share[1] for share in shares)]
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "2", "MASTER_ADDR": "node1"}, (5, 8, 2)),
        ({"SLURM_NTASKS": "8"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
    ],
)
def test_ranks_are_told_by_torchrun_or_by_srun(
    environment: dict[str, str], expected: tuple[int, int, int] | None
) -> None:
    found = rank_settings(environment)
    assert (found and (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"])) == expected


def test_srun_without_a_meeting_place_is_refused_with_what_to_type() -> None:
    with pytest.raises(TrainError, match="MASTER_ADDR") as refusal:
        rank_settings({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})
    assert "export MASTER_ADDR=" in refusal.value.__notes__[0]


def test_ranks_that_do_not_come_are_named_with_what_to_do() -> None:
    store = HashStore()
    store.set("0/1", "here")
    with pytest.raises(TrainError, match=r"rank 0 ends, for it has waited 0:00:00.01\d* for rank 2, 3") as refusal:
        Ranks(0, 4, store, timedelta(milliseconds=10)).wait()
    assert "the same command again" in refusal.value.__notes__[0]


def test_one_gpu_for_several_ranks_is_refused_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match="--device cuda:1 is one GPU, which 2 ranks cannot share") as refusal:
        pretrain(corpus, tmp_path / "run", tiny_recipe(), device="cuda:1")
    assert refusal.value.__notes__ == ["--device cuda, the GPU of each rank"]
    assert not (tmp_path / "run").exists()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the group of NCCL is ended that the first of two ranks forms, with functions of torch standing in for it."""
    calls: list[str] = []
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("train.ranks.rendezvous", lambda *_, **__: iter([(HashStore(), 0, 2)]))
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: calls.append("together"))
    monkeypatch.setattr(distributed.distributed_c10d, "_abort_process_group", lambda: calls.append("alone"))
    return calls


def test_gpus_part_together_at_the_end_and_alone_from_a_rank_that_fails(ended: list[str]) -> None:
    with joined(GPU):
        pass
    assert ended == ["together"]
    with pytest.raises(OSError, match="full"), joined(GPU):
        raise OSError("full")
    assert ended == ["together", "alone"]


NCCL_REFUSAL = """NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:93, invalid usage, NCCL version 2.28
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 0 and rank 1 both on CUDA device ac000"""


def test_what_nccl_refuses_is_one_line(ended: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device ac000\n"
    with pytest.raises(TrainError, match=f"no longer hears from another rank: {said}"), joined(GPU):
        raise distributed.DistBackendError(NCCL_REFUSAL)

    def refuse(*_: object, **__: object) -> None:
        raise distributed.DistBackendError(NCCL_REFUSAL)

    monkeypatch.setattr(distributed, "init_process_group", refuse)
    with pytest.raises(TrainError, match=f"rank 0 on cuda:0 cannot connect to .*: {said}"), joined(GPU):
        pass
    assert ended == ["alone"]


def free_port() -> int:
    """A port below those that the system hands out by itself (Linux: from 32,768 on).

    Rank 0 listens only seconds later: a port of the system's own choice may be some other connection's by then, and
    rank 1 would wait for an answer from there.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start(
    corpus: Path, out: Path, *more: str, ranks: int = 2, failpoint: str = "", port: int = 0, **changes: object
) -> list[subprocess.Popen[bytes]]:
    """`symbert pretrain` as torchrun would start it, once for each rank."""
    settings = [word for text in tiny_assignments(**changes) for word in ("--set", text)]
    command = [sys.executable, "-m", "cli", "pretrain", "--data", str(corpus), "--out", str(out), *settings, *more]
    ours = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    ours |= {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    return [
        subprocess.Popen(
            [*command, "--operator", "pairwise", "--device", "cpu", "--quiet"],
            cwd=ROOT,
            env=os.environ | ours | {"RANK": str(rank), "LOCAL_RANK": str(rank), "SYMBERT_FAILPOINT": failpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]


def said_by(processes: list[subprocess.Popen[bytes]], timeout: float = 300) -> list[str]:
    """What each rank says on stderr up to its end; ranks that do not end are told to show their stacks instead."""
    try:
        return [process.communicate(timeout=timeout)[1].decode() for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.send_signal(signal.SIGABRT)
        said = [process.communicate()[1].decode() for process in processes]
        pytest.fail(f"{[process.returncode for process in processes]}\n" + "\n".join(said))


def finish(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    said = said_by(processes)
    codes = [process.returncode for process in processes]
    assert all(code in (0, 75, -9) for code in codes), "\n".join(said)
    return codes


def facts(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_metrics(run)]


@pytest.mark.slow
def test_two_ranks_have_the_losses_of_one(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    # Of one evaluation sample the first rank's share is empty.
    changes = {"runtime__micro_batch_size": 3, "evaluation__samples": 1, **NO_DROPOUT}
    assert finish(start(corpus, tmp_path / "two", **changes)) == [0, 0]
    pretrain(corpus, tmp_path / "one", tiny_recipe("pairwise", **changes), device="cpu")
    one, two = facts(tmp_path / "one"), facts(tmp_path / "two")
    for name in ("kind", "step", "samples"):
        assert [row.get(name) for row in one] == [row.get(name) for row in two]
    for name in ("loss", "evaluation_loss", "gradient_norm"):
        found = [row[name] for row in two if name in row]
        assert found == pytest.approx(
            [row[name] for row in one if name in row], rel=1e-4 if name == "gradient_norm" else 1e-5
        )


@pytest.mark.long
def test_two_ranks_that_stop_and_go_on_are_the_same_as_two_that_never_stopped(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    changes = {"training__precision": '"bf16"', "runtime__micro_batch_size": 3}
    assert finish(start(corpus, tmp_path / "whole", **changes)) == [0, 0]
    assert finish(start(corpus, tmp_path / "parts", "--stop-after-step", "7", **changes)) == [75, 75]
    assert finish(start(corpus, tmp_path / "parts", **changes)) == [0, 0]
    assert facts(tmp_path / "parts") == facts(tmp_path / "whole")
    for name in ("model.safetensors", "optimizer.safetensors"):
        hashes = {file_sha256(checkpoint_folder(tmp_path / run, 20) / name) for run in ("whole", "parts")}
        assert len(hashes) == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_both_ranks_before_the_step_and_names_the_whole_batch(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    processes = start(corpus, tmp_path / "run", optimizer__learning_rate=1e30, checkpoint__every=2)
    said = said_by(processes)
    assert [process.returncode for process in processes] == [1, 1], "\n".join(said)
    told = re.search(r"error: step (\d+): loss .*Samples \[(.*)\] of epochs", said[0])
    assert told is not None
    step = int(told[1])
    samples, _ = TrainingOrder(96, seed=1).at(8 * step - 8, 8 * step)
    assert [int(number) for number in told[2].split(",")] == samples.tolist()
    assert max(row["step"] for row in read_metrics(tmp_path / "run")) < step


@pytest.mark.long
def test_a_used_budget_ends_the_run_on_both_ranks(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    assert finish(start(corpus, tmp_path / "run", schedule__max_minutes=1e-9)) == [0, 0]
    assert [row["step"] for row in read_metrics(tmp_path / "run") if row["kind"] == "evaluation"] == [0, 1]
    assert finish(start(corpus, tmp_path / "run", schedule__max_minutes=1e-9)) == [0, 0]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.slow
def test_what_the_first_rank_refuses_ends_the_other_as_well(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    pretrain(corpus, tmp_path / "run", tiny_recipe("pairwise"), device="cpu", stop=Stop(after_step=1))
    processes = start(corpus, tmp_path / "run", optimizer__learning_rate=0.5)
    said = said_by(processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert "holds a run with other settings" in said[0]
    assert "error: rank 1 ends, for another rank has refused to train" in said[1]


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_at_the_same_step(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    processes = start(corpus, tmp_path / "run", failpoint="pretrain.step:6:term", schedule__max_steps=4000)
    assert finish(processes) == [75, 75]
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*6")
    assert checkpoint.name == "step-00000006"


@pytest.mark.slow
def test_a_meeting_place_that_is_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first, other = start(corpus, tmp_path / "run", port=taken.getsockname()[1])
        said = said_by([first])[0]
        other.kill()  # what torchrun and srun --kill-on-bad-exit do
        other.communicate()
    assert first.returncode == 1
    assert re.fullmatch(r"error: the ranks cannot meet at 127\.0\.0\.1:\d+: .*\n\nhint: .*MASTER_PORT.*\n", said), said
    assert not (tmp_path / "run").exists()
