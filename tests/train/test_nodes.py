"""Two nodes, each with an agent of torchrun, of which one is lost; the run goes on with another number of ranks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.corpora import write_corpus
from tests.train.test_ranks import NO_DROPOUT, ROOT, facts, finish, free_port, start
from tests.train.tiny import tiny_assignments

CHANGES = {"schedule__max_steps": 400, "runtime__micro_batch_size": 3, **NO_DROPOUT}


def agents(corpus: Path, out: Path) -> list[subprocess.Popen[bytes]]:
    """`torchrun --nnodes 2` once for each node, as a scheduler would start it; they meet on the loopback."""
    settings = [word for text in tiny_assignments(**CHANGES) for word in ("--set", text)]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", out.name]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *rendezvous,
        "-m", "cli", "pretrain", "--data", str(corpus), "--out", str(out), "--operator", "pairwise", "--device", "cpu",
        "--quiet", *settings,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            command, cwd=ROOT, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        for _ in range(2)
    ]  # fmt: skip


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
@pytest.mark.parametrize("ranks", [3])
def test_a_run_that_lost_a_node_goes_on_with_other_ranks_and_the_same_samples(tmp_path: Path, ranks: int) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    nodes = agents(corpus, tmp_path / "run")
    try:
        while not (tmp_path / "run/checkpoints/step-00000006").is_dir():
            assert nodes[0].poll() is None
            time.sleep(0.01)
        agent = psutil.Process(nodes[1].pid)
        for process in (agent, *agent.children(recursive=True)):  # ranks have sessions of their own
            process.kill()
        assert nodes[0].wait(300) != 0  # the other node does not wait for ever
    finally:
        for node in nodes:
            stop(node)
    last = facts(tmp_path / "run")[-1]["step"]
    assert last < 400
    until = str(last + 20)
    assert set(finish(start(corpus, tmp_path / "run", "--stop-after-step", until, ranks=ranks, **CHANGES))) == {75}
    assert set(finish(start(corpus, tmp_path / "whole", "--stop-after-step", until, ranks=1, **CHANGES))) == {75}
    found, expected = facts(tmp_path / "run"), facts(tmp_path / "whole")
    assert [(row["step"], row["samples"]) for row in found if row["kind"] == "train"] == [
        (row["step"], row["samples"]) for row in expected if row["kind"] == "train"
    ]
    losses = [row["loss"] for row in expected if "loss" in row]
    assert [row["loss"] for row in found if "loss" in row] == pytest.approx(losses, rel=1e-4)
