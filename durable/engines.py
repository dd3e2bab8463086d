"""Where tasks run: in processes on this machine, or on the machines of a Ray cluster."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from durable.errors import DurableError, with_hint
from durable.machine import available_cores
from durable.tasks import NO_NEEDS, Argument, Executor, Needs, Result, Start, Watch
from durable.workers import Supervisor

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Makes what runs the tasks of one kind of work."""

    @property
    def name(self) -> str: ...

    def executor(
        self,
        start: Start[Argument, Result],
        setting: Any,
        count: int | None,
        watch: Watch[Argument],
        needs: Needs = NO_NEEDS,
    ) -> Executor[Argument, Result]:
        """What runs tasks, `count` at a time; None is as many as there is room for."""
        ...

    def gpus(self) -> int:
        """How many GPUs the machines of a cluster have; those of this one are the work's own affair."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Supervised processes on this machine, which has what it needs."""

    name: str = "local"

    def executor(
        self,
        start: Start[Argument, Result],
        setting: Any,
        count: int | None,
        watch: Watch[Argument],
        needs: Needs = NO_NEEDS,
    ) -> Executor[Argument, Result]:
        return Supervisor(start, setting, count or available_cores(), watch, gpus=needs.gpu_names)

    def gpus(self) -> int:
        return 0


@dataclass(frozen=True)
class RayEngine:
    """Tasks on a Ray cluster that is connected."""

    ray: Any
    name: str = "ray"

    def executor(
        self,
        start: Start[Argument, Result],
        setting: Any,
        count: int | None,
        watch: Watch[Argument],
        needs: Needs = NO_NEEDS,
    ) -> Executor[Argument, Result]:
        from durable.ray_tasks import RayTasks

        return RayTasks(self.ray, start, setting, count, watch, needs)

    def gpus(self) -> int:
        return int(self.ray.cluster_resources().get("GPU", 0))


LOCAL = LocalEngine()


@contextlib.contextmanager
def engine(name: str, address: str | None = None, workers: int | None = None) -> Iterator[Engine]:
    """Yield the engine of this name, ready for work.

    `address` is where a Ray cluster is; without one a cluster of `workers` processors is started here. Raises
    DurableError if there is no such engine, or if Ray is not installed or does not answer.
    """
    if name not in ENGINES:
        raise DurableError(f"--engine {name}: expected one of {', '.join(ENGINES)}")
    if name == "local":
        if address is not None:
            raise with_hint(DurableError("--ray-address is of use to Ray alone"), "--engine ray")
        yield LOCAL
        return
    from durable.ray_cluster import connected

    with connected(address, workers or available_cores()) as ray:
        yield RayEngine(ray)
