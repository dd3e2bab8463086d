"""What every engine owes to the work that it runs: the same outcomes, reports, refusals and ends."""

import json
import os
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from durable.board import RUNNING, STATUS, Board, Entry
from durable.engines import LOCAL, Engine, engine
from durable.errors import DurableError, with_hint
from durable.signals import StopRequest
from durable.tasks import Needs, Outcome, Posting, Tell, Watch, Work

TASKS = ["a", "die-once", "b", "refuse", "c"]


def start(folder: Path) -> Work[str, str]:
    """The work of these tests: what to do is the task's name."""
    (folder / f"started-{os.getpid()}").touch()

    def work(task: str, tell: Tell) -> str:
        tell({"done": 1, "total": 2, "pid": os.getpid()})
        mark = folder / task
        if task == "die-always" or (task == "die-once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "refuse":
            raise with_hint(DurableError(f"{task} is refused"), "try another")
        if task == "fail":
            raise KeyError(task)
        if task.startswith("slow"):
            time.sleep(3)
        if task == "sleep":
            mark.touch()
            time.sleep(600)
        return f"{task} done"

    return work


def needs_ray() -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine_(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "ray":
        needs_ray()
    with engine(request.param, workers=2 if request.param == "ray" else None) as made:
        yield made


def run(
    engine_: Engine, folder: Path, tasks: list[str], watch: Watch[str] | None = None, needs: Needs | None = None
) -> dict[str, Outcome[str, str]]:
    executor = engine_.executor(start, folder, 2, watch or Watch(), needs or Needs())
    return {outcome.argument: outcome for outcome in executor.run(tasks)}


def listed(folder: Path, tasks: list[str]) -> Posting[str]:
    board = Board(folder)
    board.begin("test", "any", "tasks", {task: Entry(task, 1, f"{task}.done") for task in tasks})
    return Posting(board, str)


def test_every_task_has_one_outcome_and_a_worker_that_dies_costs_nobody_else(engine_: Engine, tmp_path: Path) -> None:
    lost = []
    outcomes = run(engine_, tmp_path, TASKS, Watch(on_loss=lambda task, what: lost.append((task, what))))
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a": "a done", "b": "b done", "c": "c done", "die-once": "die-once done", "refuse": None,
    }  # fmt: skip
    assert outcomes["die-once"].deaths == 1
    assert lost == [("die-once", "its process was killed")]


def test_the_work_is_begun_once_in_a_worker_for_all_its_tasks(engine_: Engine, tmp_path: Path) -> None:
    assert len(run(engine_, tmp_path, [f"task {number}" for number in range(20)])) == 20
    assert 1 <= len(list(tmp_path.glob("started-*"))) <= 3


def test_an_error_of_the_work_is_an_outcome_with_its_hint_and_is_not_tried_again(
    engine_: Engine, tmp_path: Path
) -> None:
    outcomes = run(engine_, tmp_path, ["refuse", "fail"])
    error = outcomes["refuse"].error
    assert isinstance(error, DurableError)
    assert str(error) == "refuse is refused"
    assert error.__notes__ == ["try another"]
    assert "in work" in str(error.__cause__)
    assert isinstance(outcomes["fail"].error, KeyError)
    assert outcomes["refuse"].deaths == 0


def test_a_task_that_always_kills_its_worker_is_left_out_after_three_attempts(engine_: Engine, tmp_path: Path) -> None:
    outcomes = run(engine_, tmp_path, ["die-always", "a"])
    assert outcomes["die-always"].lost
    assert outcomes["die-always"].deaths == 3
    assert not outcomes["a"].lost


def test_tasks_are_asked_for_when_there_is_room_and_not_before(engine_: Engine, tmp_path: Path) -> None:
    asked = []

    def tasks() -> Iterator[str]:
        for number in range(6):
            asked.append(number)
            yield f"task {number}"

    executor = engine_.executor(start, tmp_path, 2, Watch())
    for ended, _ in enumerate(executor.run(tasks()), start=1):
        assert len(asked) <= ended + 2


@pytest.mark.slow
def test_what_runs_is_on_the_board_and_reports_reach_the_driver(engine_: Engine, tmp_path: Path) -> None:
    posting = listed(tmp_path, ["slow"])
    heard = []

    def hear(task: str, facts: object) -> None:
        note = json.loads((tmp_path / STATUS / RUNNING / "slow.json").read_text())
        heard.append((task, facts, note["facts"]["done"]))

    run(engine_, tmp_path, ["slow"], Watch(hear, posting=posting))
    task, facts, noted = heard[0]
    assert (task, facts["done"], noted) == ("slow", 1, 1)
    assert not list((tmp_path / STATUS / RUNNING).iterdir())


def test_what_failed_is_on_the_board_until_it_is_done(engine_: Engine, tmp_path: Path) -> None:
    posting = listed(tmp_path, ["refuse", "die-always", "a"])
    run(engine_, tmp_path, ["refuse", "die-always", "a"], Watch(posting=posting))
    failures = posting.board.failures()
    assert {key: (failure.reason, failure.deaths, failure.kind) for key, failure in failures.items()} == {
        "refuse": ("refuse is refused", 0, "DurableError"),
        "die-always": ("its process was killed 3 times", 3, ""),
    }
    assert not list((tmp_path / STATUS / RUNNING).iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_run_and_its_workers(engine_: Engine, tmp_path: Path, number: signal.Signals) -> None:
    workers = []

    def interrupt(_: str, facts: dict[str, int]) -> None:
        workers.append(facts["pid"])
        os.kill(os.getpid(), number)

    with StopRequest() as stop:
        outcomes = run(engine_, tmp_path, ["sleep"], Watch(interrupt, stop, listed(tmp_path, ["sleep"])))
    assert outcomes == {}
    assert stop.received is number
    for _ in range(100):
        if not alive(workers[0]):
            break
        time.sleep(0.1)
    assert not alive(workers[0])
    assert not list((tmp_path / STATUS / RUNNING).iterdir())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DurableError, match="--engine dask: expected one of local, ray"), engine("dask"):
        pass


def test_an_address_without_ray_is_refused() -> None:
    with pytest.raises(DurableError, match="of use to Ray alone"), engine("local", "10.0.0.1:6379"):
        pass


def test_the_local_engine_needs_no_address() -> None:
    with engine("local") as made:
        assert made is LOCAL
