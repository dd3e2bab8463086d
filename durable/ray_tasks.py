"""Tasks on the machines of a Ray cluster, under the same rules as local workers.

Arguments are paths and small settings: files are read and written where they lie, on a file system that all machines
share. A task whose worker dies is sent again, and left out when that has happened `attempts` times; a machine that
is lost is no fault of the tasks that ran there. An error that the work raises is an outcome, and not tried again.
"""

import contextlib
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from durable import __version__
from durable.board import Board, Facts
from durable.errors import DurableError, with_hint
from durable.shipping import Shipment, ship
from durable.tasks import (
    ATTEMPTS,
    NO_NEEDS,
    Answer,
    Argument,
    Needs,
    Outcome,
    Result,
    Start,
    Watch,
    Work,
    attempt,
    outcome_of,
)

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_WITHOUT_PROCESSORS = 60.0
MACHINES_LOST = 20
"""A task that so many machines were lost under is taken to have a hand in it."""
NOTES_A_SECOND = 200


@dataclass(frozen=True)
class _Setting(Generic[Argument, Result]):
    """What every worker is sent once."""

    run: str
    start: Start[Argument, Result]
    setting: Any
    board: Board | None
    board_token: str | None
    folder: Path
    paths: tuple[Path, ...]
    version: str
    shipment: Shipment | None
    moved: Callable[[Any, Mapping[Path, Path]], Any]

    def unpacked(self) -> Any:
        """The work's setting for this machine."""
        if self.shipment is None:
            return self.setting
        import ray

        return self.moved(self.setting, self.shipment.unpack(ray))


@dataclass
class _Flight(Generic[Argument]):
    argument: Argument
    key: str
    deaths: int = 0
    machines_lost: int = 0
    facts: Facts | None = None


@dataclass
class RayTasks(Generic[Argument, Result]):
    """Runs tasks on a Ray cluster: what Supervisor does on one machine."""

    ray: Any
    """The module, connected."""
    start: Start[Argument, Result]
    setting: Any
    count: int | None = None
    """Tasks at a time; None is as many as the cluster has room for, also when machines join or leave."""
    watch: Watch[Argument] = field(default_factory=Watch)
    needs: Needs = NO_NEEDS
    attempts: int = ATTEMPTS
    _flights: dict[Any, _Flight[Argument]] = field(default_factory=dict, init=False)

    def run(self, tasks: Iterable[Argument]) -> Iterator[Outcome[Argument, Result]]:
        """Yield the outcome of every task as it ends. `tasks` is asked for the next one when there is room.

        A stop request ends the run early, as closing the iterator does: the workers are killed, and what they were
        doing is not done. Raises DurableError if a machine lacks symbert or does not see a path, or if the cluster
        has no room left.
        """
        waiting = iter(tasks)
        remote = self.ray.remote(max_retries=0, num_gpus=self.needs.gpus)(_attend)
        run = secrets.token_hex(8)
        shipment = ship(self.ray, run, self.needs.shipped)
        setting = self.ray.put(self._for_workers(run, shipment))
        room = _Room(self.ray, self.count, "GPU" if self.needs.gpus else "CPU")
        looked = 0.0
        try:
            while True:
                while len(self._flights) < room.size():
                    argument = next(waiting, None)
                    if argument is None:
                        break
                    self._send(remote, setting, _Flight(argument, self.watch.key(argument)))
                if not self._flights and room.size():
                    return
                for flight, answer in self._landed():
                    outcome = self._judge(flight, answer)
                    if outcome is None:
                        self._send(remote, setting, flight)
                    else:
                        if self.watch.posting is not None:
                            self.watch.posting.settle(outcome)
                        yield outcome
                if self.watch.stopped:
                    return
                if time.monotonic() - looked > max(SECONDS_BETWEEN_LOOKS, len(self._flights) / NOTES_A_SECOND):
                    looked = time.monotonic()
                    self._look()
        finally:
            self._end()
            if shipment is not None:
                with contextlib.suppress(Exception):  # what ended the run is to be heard, not this
                    shipment.forget(self.ray)

    def _for_workers(self, run: str, shipment: Shipment | None) -> _Setting[Argument, Result]:
        board = self.watch.board
        return _Setting(
            run, self.start, self.setting, board, board.token if board is not None else None,
            Path.cwd(), tuple(path.absolute() for path in self.needs.paths), __version__,
            shipment, self.needs.moved,
        )  # fmt: skip

    def _send(self, remote: Any, setting: Any, flight: _Flight[Argument]) -> None:
        paths = [path.absolute() for path in self.needs.of_task(flight.argument)]
        reference = remote.options(scheduling_strategy="SPREAD").remote(setting, flight.argument, flight.key, paths)
        self._flights[reference] = flight

    def _landed(self) -> Iterator[tuple[_Flight[Argument], Answer | Exception]]:
        if not self._flights:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            return
        ready, _ = self.ray.wait(list(self._flights), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        for reference in ready:
            flight = self._flights.pop(reference)
            try:
                yield flight, self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                yield flight, error

    def _judge(self, flight: _Flight[Argument], answer: Answer | Exception) -> Outcome[Argument, Result] | None:
        """The outcome of a task, or None if it is to be sent again."""
        if not isinstance(answer, Exception):
            kind, content = answer
            if kind == "refused":
                raise content
            return outcome_of(flight.argument, answer, flight.deaths)
        errors = self.ray.exceptions
        if isinstance(answer, errors.WorkerCrashedError | errors.OutOfMemoryError):
            flight.deaths, what = flight.deaths + 1, "its process was killed"
        elif isinstance(answer, errors.NodeDiedError | errors.ObjectLostError | errors.LocalRayletDiedError):
            flight.machines_lost, what = flight.machines_lost + 1, "its machine was lost"
        else:
            raise with_hint(
                DurableError(f"a machine of the Ray cluster cannot do the work: {_last_line(answer)}"),
                "every machine needs the same Python and the same version of symbert",
            )
        left_out = flight.deaths >= self.attempts or flight.machines_lost >= MACHINES_LOST
        if left_out:
            return Outcome(flight.argument, deaths=flight.deaths + flight.machines_lost)
        if self.watch.on_loss is not None:
            self.watch.on_loss(flight.argument, what)
        return None

    def _look(self) -> None:
        """Pass on what running tasks have said on the board."""
        if self.watch.board is None or self.watch.on_report is None:
            return
        for flight in self._flights.values():
            facts = self.watch.board.facts(flight.key)
            if facts is not None and facts != flight.facts:
                flight.facts = facts
                self.watch.on_report(flight.argument, facts)

    def _end(self) -> None:
        """Kill what still runs: nothing that it writes is whole yet."""
        for reference in self._flights:
            self.ray.cancel(reference, force=True)
        if self._flights:
            self.ray.wait(list(self._flights), num_returns=len(self._flights), timeout=10)
        for flight in self._flights.values():
            if self.watch.board is not None:
                self.watch.board.stopped(flight.key)
        self._flights.clear()


class _Room:
    """How many tasks the cluster takes at a time."""

    def __init__(self, ray: Any, count: int | None, resource: str) -> None:
        self._ray, self._count, self._resource = ray, count, resource
        self._size, self._asked, self._last_seen = 0, 0.0, time.monotonic()

    def size(self) -> int:
        """Tasks at a time. Raises DurableError if there has been no room for a minute."""
        now = time.monotonic()
        if now - self._asked > 2.0 or not self._size:
            self._asked = now
            self._size = int(self._ray.cluster_resources().get(self._resource, 0))
            if self._size:
                self._last_seen = now
            elif now - self._last_seen > SECONDS_WITHOUT_PROCESSORS:
                raise with_hint(
                    DurableError(f"the Ray cluster has had no {self._resource} for a minute"),
                    "add machines with `ray start --address`, then run the same command again",
                )
        return min(self._size, 1) * self._count if self._count is not None else self._size


_started: dict[str, Work[Any, Any]] = {}
"""What this process does for each task of the run that it works for."""


def _attend(
    setting: _Setting[Argument, Result], argument: Argument, key: str, paths: Sequence[Path]
) -> tuple[str, Any]:
    """The worker's side: do one task where it was sent."""
    with contextlib.suppress(OSError):  # the machine may lack the driver's folder, if nothing is named relative to it
        os.chdir(setting.folder)
    try:
        _check_machine(setting, paths)
    except DurableError as error:
        return "refused", error

    def started() -> Work[Argument, Result]:
        if setting.run not in _started:
            _started.clear()
            _started[setting.run] = setting.start(setting.unpacked())
        return _started[setting.run]

    return attempt(started, argument, lambda _: None, setting.board, key)


def _check_machine(setting: _Setting[Any, Any], paths: Sequence[Path]) -> None:
    """Raises DurableError, naming the machine, if it is not fit for the run."""
    here = f"the machine {platform.node()} of the Ray cluster"
    if __version__ != setting.version:
        raise DurableError(f"{here} has symbert {__version__}, expected {setting.version} as here")
    hint = "the output, the inputs and every file that is named must lie on a file system that all machines share"
    for path in (*setting.paths, *paths):
        if not path.exists():
            raise with_hint(DurableError(f"{here} does not see {path}"), hint)
    if setting.board is not None and setting.board.token != setting.board_token:
        raise with_hint(DurableError(f"{here} sees another folder at {setting.board.out.absolute()}"), hint)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
