"""Tasks in worker processes that die, fail and are stopped."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from durable.errors import DurableError, with_hint
from durable.signals import StopRequest
from durable.tasks import Outcome, Tell, Watch, Work
from durable.workers import Supervisor


def start(folder: Path) -> Work[str, str]:
    """The work of these tests: what to do is the task's name."""

    def work(task: str, tell: Tell) -> str:
        tell({"pid": os.getpid()})
        if task.startswith("die-once"):
            mark = folder / task
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if task.startswith("die-always"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.startswith("refuse"):
            raise with_hint(DurableError(f"{task} is refused"), "try another")
        if task.startswith("sleep"):
            signal.pause()
        return f"{task} done"

    return work


def run(folder: Path, tasks: list[str], **settings: Any) -> dict[str, Outcome[str, str]]:
    supervisor: Supervisor[str, str] = Supervisor(start, folder, 2, Watch(**settings))
    return {outcome.argument: outcome for outcome in supervisor.run(tasks)}


def test_a_worker_that_is_killed_costs_nobody_a_task(tmp_path: Path) -> None:
    outcomes = run(tmp_path, ["a", "die-once", "b", "refuse", "c"])
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a": "a done", "b": "b done", "c": "c done", "die-once": "die-once done", "refuse": None,
    }  # fmt: skip
    assert outcomes["die-once"].deaths == 1


def test_an_error_arrives_with_its_hint_and_where_it_was_raised(tmp_path: Path) -> None:
    error = run(tmp_path, ["refuse"])["refuse"].error
    assert isinstance(error, DurableError)
    assert str(error) == "refuse is refused"
    assert error.__notes__ == ["try another"]
    assert "in work" in str(error.__cause__)


def test_a_task_that_always_kills_its_worker_is_left_out_after_three_attempts(tmp_path: Path) -> None:
    outcomes = run(tmp_path, ["die-always", "a"])
    assert outcomes["die-always"].lost
    assert outcomes["die-always"].deaths == 3
    assert not outcomes["a"].lost


def test_reports_reach_the_parent_with_their_task(tmp_path: Path) -> None:
    heard = []
    run(tmp_path, ["a"], on_report=lambda task, facts: heard.append((task, set(facts))))
    assert heard == [("a", {"pid"})]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_run_and_the_workers(tmp_path: Path, number: signal.Signals) -> None:
    workers = []

    def interrupt(_: str, facts: dict[str, int]) -> None:
        workers.append(facts["pid"])
        os.kill(os.getpid(), number)

    with StopRequest() as stop:
        outcomes = run(tmp_path, ["sleep"], on_report=interrupt, stop=stop)
    assert outcomes == {}
    assert stop.received is number
    with pytest.raises(ProcessLookupError):
        os.kill(workers[0], 0)
