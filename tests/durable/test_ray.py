"""What can go wrong with a Ray cluster, said within seconds."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable import ray_cluster
from durable.engines import Engine, RayEngine, engine
from durable.errors import DurableError
from durable.locks import folder_lock
from durable.ray_cluster import _well
from durable.shipping import PREFIX
from durable.tasks import Needs, Outcome, Tell, Watch, Work
from tests.durable.test_engines import TASKS, listed, needs_ray, run

LOGGED = "[2026-01-01 00:00:00,000 E 77 77] gcs_client.cc:1"


def test_without_ray_there_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what a missing module looks like to `import`
    expected = pytest.raises(DurableError, match="Ray is not installed, which --engine ray needs")
    with expected as raised, engine("ray"):
        pass
    assert raised.value.__notes__ == ["pip install 'symbert[ray]'"]


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "ray://10.0.0.1:10001", "head:port", ":6379", "head:0", "head:65536", "head:123456"]
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    needs_ray()
    with pytest.raises(DurableError, match="is not host:port of a cluster's head node"), engine("ray", address):
        pass


@pytest.mark.parametrize("address", ["someone:se/cret@10.0.0.1:6379", "ray://se/cret@10.0.0.1:10001"])
def test_a_user_or_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    needs_ray()
    for name in ("ray", "local"):
        with pytest.raises(DurableError, match="--ray-address") as raised, engine(name, address):
            pass
        assert not any(part in str(raised.value) for part in ("someone", "se/", "cret", "10.0.0.1"))


@pytest.mark.parametrize(
    ("complaints", "message"),
    [
        ("", "ADDRESS is no Ray cluster, or one that is not well"),
        (f"{LOGGED}: Failed to connect\n", "ADDRESS is no Ray cluster, or one that is not well"),
        (f"{LOGGED}: E\nTraceback\nValueError: Can't find it.\n", "or one that is not well: Can't find it"),
        ("RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2\n", "runs another version of Ray"),
    ],
)
def test_what_answers_but_is_not_well_is_told_in_one_line_of_ours(
    complaints: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_probe", lambda _: (None, complaints))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(DurableError) as raised:
            _well(address)
    assert message.replace("ADDRESS", address) in str(raised.value)
    assert "gcs_client" not in str(raised.value)
    assert len(raised.value.__notes__) == 1


def test_an_address_that_does_not_answer_is_an_error_within_seconds() -> None:
    needs_ray()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    address = f"127.0.0.1:{port}"
    with pytest.raises(DurableError, match=f"no Ray cluster answers at {address}"), engine("ray", address):
        pass
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_something_else_that_listens_is_no_cluster_and_does_not_hang() -> None:
    needs_ray()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        expected = pytest.raises(DurableError, match=f"answers at {address} is no Ray cluster, or one that is not well")
        with expected as raised, engine("ray", address):
            pass
    assert "\n" not in str(raised.value)
    assert "gcs" not in str(raised.value)
    assert "`ray start --head`" in raised.value.__notes__[0]


@pytest.mark.slow
def test_a_machine_of_no_cluster_says_so_for_auto() -> None:
    needs_ray()
    with pytest.raises(DurableError, match="belongs to no Ray cluster"), engine("ray", "auto"):
        pass


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Engine]:
    needs_ray()
    with engine("ray", workers=1) as made:
        yield made


@pytest.mark.slow
def test_a_machine_without_a_shared_path_is_named_with_the_path(ray_here: Engine, tmp_path: Path) -> None:
    for needs in (Needs([tmp_path / "gone"]), Needs(of_task=lambda _: [tmp_path / "gone"])):
        with pytest.raises(DurableError, match=f"the machine {socket.gethostname()} .* does not see {tmp_path}/gone"):
            run(ray_here, tmp_path, ["a"], needs=needs)


@pytest.mark.slow
def test_a_machine_that_sees_another_folder_by_the_same_path_is_named(ray_here: Engine, tmp_path: Path) -> None:
    posting = listed(tmp_path, TASKS)

    def tasks() -> Iterator[str]:
        yield "a"
        posting.board.begin("other", "any", "tasks", {})  # as if the path led elsewhere on that machine
        yield "b"

    executor = ray_here.executor(_start, tmp_path, 1, Watch(posting=posting))
    ended: list[Outcome[str, str]] = []
    with pytest.raises(DurableError, match="sees another folder at"):
        ended.extend(executor.run(tasks()))


def _start(_: Path) -> Work[str, str]:
    def work(task: str, _: Tell) -> str:
        return task

    return work


def _start_with_words(words: Path) -> Work[str, str]:
    content = words.read_text("utf-8")

    def work(task: str, _: Tell) -> str:
        return f"{task} {content} {words.parents[1].name}"

    return work


@pytest.mark.slow
def test_shipped_files_are_read_on_machines_that_do_not_see_them_and_leave_nothing(
    ray_here: Engine, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("seen", "utf-8")
    abandoned = Path(tempfile.gettempdir(), f"{PREFIX}{os.getuid()}-of-a-driver-that-was-killed")
    with folder_lock(abandoned):
        pass

    def tasks() -> Iterator[str]:
        (tmp_path / "words.txt").unlink()  # from here on as if it were not on the shared file system
        yield from "ab"

    needs = Needs(shipped=[tmp_path / "words.txt"], moved=lambda words, places: places[words])
    executor = ray_here.executor(_start_with_words, tmp_path / "words.txt", 1, Watch(), needs)
    results = [str(outcome.result).split() for outcome in executor.run(tasks())]
    assert [result[:2] for result in results] == [["a", "seen"], ["b", "seen"]]
    (folder,) = {result[2] for result in results}
    assert folder.startswith(PREFIX)
    assert not Path(tempfile.gettempdir(), folder).exists()
    assert not abandoned.exists()


@pytest.mark.slow
def test_a_cluster_started_here_asks_for_its_token(ray_here: Engine) -> None:
    assert isinstance(ray_here, RayEngine)
    address = ray_here.ray.get_runtime_context().gcs_address
    command = "import ray, sys; ray.init(sys.argv[1], logging_level='error')"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    stranger = subprocess.run(
        [sys.executable, "-c", command, address], env=environment, capture_output=True, text=True, timeout=60
    )
    assert stranger.returncode
    assert "InvalidAuthToken" in stranger.stderr
    with pytest.raises(DurableError, match=f"the Ray cluster at {address} asks for another token"):
        _well(address)


@pytest.mark.slow
def test_a_cluster_started_here_leaves_no_file_and_no_process() -> None:
    needs_ray()
    script = """
from durable.engines import engine
with engine("ray", workers=1) as made:
    print(made.ray.get_runtime_context().gcs_address)
    print(*__import__("pathlib").Path("/tmp").glob("symbert-ray-*"))
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    _address, folders = result.stdout.splitlines()
    for folder in folders.split():
        with_folder = [path for path in Path("/proc").glob("[0-9]*/cmdline") if folder.encode() in _content(path)]
        assert not Path(folder).exists() or with_folder  # another one's
    assert result.stderr == ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
