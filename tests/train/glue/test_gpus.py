"""How the GPUs of a node are divided among workers; functions of torch stand in for the GPUs."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from durable.board import Board
from durable.engines import LOCAL, RayEngine
from durable.progress import silent
from durable.tasks import Tell, Work
from train.device import find_device
from train.glue.queue import Job, Place, Queue, Watch, default_workers, gpus_of

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv(VISIBLE, raising=False)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("asked", "visible", "names"),
    [
        (None, None, ("0", "1", "2", "3")),
        ("cuda", None, ("0", "1", "2", "3")),
        ("cuda:0", None, ("0",)),
        ("cuda:1", None, ("1",)),
        ("cuda", "4,5,GPU-5f,7", ("4", "5", "GPU-5f", "7")),
        ("cuda:2", "4,5,GPU-5f,7", ("GPU-5f",)),
        ("cpu", None, ()),
        ("cpu", "4,5", ()),
    ],
)
def test_there_is_a_worker_for_each_gpu_that_is_asked_for(
    asked: str | None, visible: str | None, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    device = find_device(asked)
    gpus = gpus_of(device, asked)
    assert gpus == names
    if asked != "cpu":
        assert default_workers(gpus, 0) == len(names)
    assert not torch.cuda.is_initialized()


def test_where_the_variable_hides_all_gpus_a_core_has_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "")
    assert gpus_of(find_device(None), None) == ()
    assert default_workers((), 0) >= 1


def test_a_worker_finds_its_gpu_at_index_0_and_this_process_by_its_number() -> None:
    place = Place(Board(Path("out")), torch.device("cuda:1"), gpus=("1",))
    assert (place.device, place.device_of_workers) == (torch.device("cuda:1"), torch.device("cuda:0"))
    assert (place.needs.gpus, place.needs.gpu_names) == (0, ("1",))
    on_ray = Place(Board(Path("out")), torch.device("cuda"), RayEngine(None))
    assert (on_ray.device_of_workers, on_ray.needs.gpus, on_ray.needs.gpu_names) == (torch.device("cuda"), 1, ())
    on_cpu = Place(Board(Path("out")), torch.device("cpu"), LOCAL)
    assert (on_cpu.device_of_workers, on_cpu.needs.gpus) == (torch.device("cpu"), 0)


@dataclass(frozen=True)
class Order:
    place: int
    paths: tuple[Path, ...] = ()


def start(setting: tuple[str, str]) -> Work[Order, tuple[str, str | None, int]]:
    """Tells what it was started with, what it sees and where it is, once as many as are to be are there."""
    folder, device = Path(setting[0]), setting[1]

    def work(order: Order, _: Tell) -> tuple[str, str | None, int]:
        (folder / f"{order.place}.begun").touch()
        while len(list(folder.glob("*.begun"))) < int(folder.name):
            time.sleep(0.01)
        return device, os.environ.get(VISIBLE), os.getpid()

    return work


def told(folder: Path, workers: int, device: str, gpus: tuple[str, ...]) -> list[tuple[str, str | None, int]]:
    folder.mkdir()
    jobs = [Job(name, name, name, 1, 1.0, Order) for name in "ab"]
    place = Place(Board(folder), torch.device(device), gpus=gpus)
    queue: Queue[str, tuple[str, str | None, int]] = Queue(jobs, start, str(folder), Watch(silent, None), place)
    return [result for _, result in queue.results(workers)]


@pytest.mark.slow
def test_workers_compute_on_the_gpu_that_they_see_and_one_alone_in_this_process_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    divided = told(tmp_path / "2", 2, "cuda:0", ("4", "5"))
    assert sorted(divided)[0][:2] == ("cuda:0", "4")
    assert sorted(divided)[1][:2] == ("cuda:0", "5")
    assert os.getpid() not in {process for _, _, process in divided}
    assert told(tmp_path / "1", 1, "cuda:1", ("1",)) == [("cuda:1", None, os.getpid())] * 2


ASKS_NOTHING = """
import torch

def asked(*_, **__):
    raise SystemExit("CUDA was asked")

for name in ("is_available", "device_count", "current_device", "_lazy_init"):
    setattr(torch.cuda, name, asked)
import train.glue.order
import train.squad.grid
"""


@pytest.mark.slow
def test_what_workers_import_asks_nothing_of_cuda_before_they_are_shown_their_gpu() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS_NOTHING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
