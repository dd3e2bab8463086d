import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durable.errors import DurableError, UnfinishedError
from durable.locks import LOCK_NAME, folder_lock
from durable.signals import StopRequest

ROOT = Path(__file__).parents[2]
HOLD = (
    "import pathlib, sys, time\n"
    "from durable.locks import folder_lock\n"
    "with folder_lock(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_second_run_on_a_folder_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DurableError, match=f"in use by process {holder.pid} on"), folder_lock(tmp_path):
            pass
        holder.kill()
    with folder_lock(tmp_path):
        pass


def test_a_lock_that_leads_to_another_file_leaves_that_file_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    (tmp_path / "out" / LOCK_NAME).symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="symbolic links"), folder_lock(tmp_path / "out"):
        pass
    assert (tmp_path / "thesis.tex").read_text("utf-8") == "precious"


def test_a_lock_file_that_its_holder_deletes_locks_nobody_out_and_nobody_in(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path / "out"):
            with pytest.raises(DurableError, match="in use"), folder_lock(tmp_path / "out"):
                pass
            (tmp_path / "out" / LOCK_NAME).unlink()
            (tmp_path / "out").rmdir()


def test_a_lock_that_is_won_on_a_deleted_file_is_won_again_on_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, deleted = fcntl.flock, []

    def delete_before_locking(descriptor: int, how: int) -> None:
        if not deleted:
            deleted.append((tmp_path / LOCK_NAME).unlink())
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", delete_before_locking)
    with folder_lock(tmp_path), pytest.raises(DurableError, match="in use"), folder_lock(tmp_path):
        pass
    assert deleted


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DurableError, match="file/below cannot be made"), folder_lock(tmp_path / "file" / "below"):
        pass


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_becomes_a_wish_with_its_exit_code(number: signal.Signals, exit_code: int) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.exit_code == exit_code
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGTERM, UnfinishedError), (signal.SIGUSR1, UnfinishedError), (signal.SIGINT, KeyboardInterrupt)],
)
def test_work_that_has_nothing_to_save_stops_where_it_asks(
    number: signal.Signals, expected: type[BaseException]
) -> None:
    with StopRequest() as stop:
        stop.raise_if_requested("nothing has happened")
        os.kill(os.getpid(), number)
        with pytest.raises(expected):
            stop.raise_if_requested("nothing has happened")
