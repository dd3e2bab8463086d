"""Which GPU each worker is shown, and what CUDA_VISIBLE_DEVICES calls those of a machine; no GPU is needed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from durable.engines import LOCAL
from durable.machine import gpu_names
from durable.tasks import Needs, Tell, Watch, Work
from durable.workers import Supervisor

VISIBLE = "CUDA_VISIBLE_DEVICES"


def wait(until: Callable[[], bool]) -> None:
    while not until():
        time.sleep(0.01)


def start(folder: Path) -> Work[str, str]:
    """Each task notes the GPU that it sees, and ends once three tasks run at a time; one that dies, once it is back."""

    def work(task: str, _: Tell) -> str:
        turn = len(list(folder.glob(f"{task}.*")))
        (folder / f"{task}.{turn}").write_text(os.environ.get(VISIBLE, "unset"))
        wait(lambda: len(list(folder.glob("*.0"))) == 3)
        if "dies" in task and not turn:
            os.kill(os.getpid(), signal.SIGKILL)
        wait(lambda: (folder / "dies.1").exists() or not (folder / "dies.0").exists())
        return os.environ.get(VISIBLE, "unset")

    return work


def seen(folder: Path, tasks: tuple[str, str, str], gpus: tuple[str, ...]) -> list[str | None]:
    """The GPUs of three workers, by task."""
    supervisor: Supervisor[str, str] = Supervisor(start, folder, 3, gpus=gpus)
    found = {outcome.argument: outcome.result for outcome in supervisor.run(tasks)}
    return [found[task] for task in tasks]


def test_each_worker_sees_one_gpu(tmp_path: Path) -> None:
    assert seen(tmp_path, ("a", "b", "c"), ("0", "3", "GPU-5f")) == ["0", "3", "GPU-5f"]


def test_workers_beyond_the_number_of_gpus_share_them_in_turn(tmp_path: Path) -> None:
    assert seen(tmp_path, ("a", "b", "c"), ("4", "5")) == ["4", "5", "4"]


def test_the_gpu_of_a_killed_worker_is_that_of_the_one_that_follows(tmp_path: Path) -> None:
    assert seen(tmp_path, ("a", "dies", "c"), ("0", "1", "2")) == ["0", "1", "2"]
    assert [(tmp_path / f"dies.{turn}").read_text() for turn in (0, 1)] == ["1", "1"]


def test_workers_that_are_told_of_no_gpus_see_what_the_program_does(tmp_path: Path) -> None:
    assert seen(tmp_path, ("a", "b", "c"), ()) == [os.environ.get(VISIBLE, "unset")] * 3


def test_the_local_engine_passes_the_gpus_on(tmp_path: Path) -> None:
    executor = LOCAL.executor(start, tmp_path, 3, Watch[str](), Needs(gpu_names=("7",)))
    assert [outcome.result for outcome in executor.run(["a", "b", "c"])] == ["7"] * 3


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [
        (None, 3, ("0", "1", "2")),
        (None, 0, ()),
        ("", 0, ()),
        ("2,5", 2, ("2", "5")),
        (" 2, 5 ", 2, ("2", "5")),
        ("2,-1,5", 1, ("2",)),  # CUDA passes over what follows an entry that it does not know
        ("GPU-8932f937,GPU-7d1a", 2, ("GPU-8932f937", "GPU-7d1a")),
        ("MIG-1c,MIG-2d", 1, ("MIG-1c", "MIG-2d")),  # of which a process sees the first alone
    ],
)
def test_gpus_have_the_names_by_which_this_process_sees_them(
    given: str | None, count: int, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    if given is not None:
        monkeypatch.setenv(VISIBLE, given)
    assert gpu_names(count) == names
