"""The processes of one run: one, unless torchrun or srun started several."""

import contextlib
import gc
import itertools
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from durable.errors import few, with_hint
from train.errors import TrainError

TIMEOUT = timedelta(minutes=30)
"""How long ranks wait for each other. What each of them does by itself between two exchanges, reading the checkpoint
that all go on from and compiling the first step, may take longer than the 10 minutes that NCCL would wait."""
PATIENCE = timedelta(days=1)
"""How long the others wait for the first rank where it works alone: it reads a corpus, or writes a checkpoint."""
LONGEST_PAUSE = 0.25
"""Seconds between two looks whether the others have come."""

# What srun tells its tasks, by torchrun's names for the same.
SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this is, and what they do together; with one process, all of it is nothing."""

    number: int
    count: int
    store: Store | None = None
    """Where several ranks leave word that they have come."""
    timeout: timedelta = TIMEOUT
    meetings: Iterator[int] = field(default_factory=itertools.count)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.number == 0

    def share(self, samples: int) -> tuple[int, int]:
        """This process's part of `samples`, as start and stop; the parts differ by at most one sample."""
        return samples * self.number // self.count, samples * (self.number + 1) // self.count

    def total(self, values: Tensor, device: torch.device) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.count == 1:
            return values
        sent = values.to(device)
        distributed.all_reduce(sent)
        return sent.cpu()

    def any(self, wish: bool, device: torch.device) -> bool:
        """Whether any process wishes it: how all of them stop at the same step."""
        return bool(self.total(torch.tensor(float(wish)), device)) if self.count > 1 else wish

    @contextlib.contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """A block that all processes leave together, also where one of them refuses; the first may take hours for it.

        Raises TrainError in those that had nothing to refuse themselves.
        """
        try:
            yield
        except BaseException:
            # What this rank refuses is what is to be said, whatever has become of the others.
            with contextlib.suppress(TrainError, RuntimeError):
                self._one_refuses(True, device)
            raise
        if self._one_refuses(False, device):
            raise TrainError(f"rank {self.number} ends, for another rank has refused to train: see what it says")

    def wait(self) -> None:
        """Until all processes are here; the first may come hours later."""
        if self.count > 1:
            self._meet()
            distributed.barrier()

    def _one_refuses(self, refused: bool, device: torch.device) -> bool:
        if self.count > 1:
            self._meet()
        return self.any(refused, device)

    def _meet(self) -> None:
        """Until all processes are about to be here, with no exchange in flight, which would end them at its timeout.

        An exchange has to follow: without one the first rank, which may be the host of the store, could end before the
        others have looked. Raises TrainError, naming them, if ranks do not come in time; torch's DistNetworkError, at
        once, if the store's host has ended.
        """
        assert self.store is not None
        meeting = next(self.meetings)
        keys = [f"{meeting}/{number}" for number in range(self.count)]
        self.store.set(keys[self.number], "here")
        self._wait_for(keys[:1], PATIENCE)
        self._wait_for(keys, self.timeout)

    def _wait_for(self, keys: Sequence[str], patience: timedelta) -> None:
        assert self.store is not None
        until, pause = time.monotonic() + patience.total_seconds(), 0.001
        while not self.store.check([*keys]):
            if time.monotonic() > until:
                missing = few(number for number, key in enumerate(keys) if not self.store.check([key]))
                raise with_hint(
                    TrainError(f"rank {self.number} ends, for it has waited {patience} for rank {missing}"),
                    "see what that rank says; the same command again goes on from the newest checkpoint",
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


ALONE = Ranks(0, 1)


def rank_settings(environment: Mapping[str, str]) -> dict[str, int] | None:
    """RANK, WORLD_SIZE and LOCAL_RANK as torchrun or srun set them; None for a process of its own.

    An srun of one task is a process of its own, and so is a shell within a Slurm job (which has SLURM_NTASKS, but
    no SLURM_PROCID of a step).
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return {name: int(environment.get(name, "0")) for name in SLURM}
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        if "MASTER_ADDR" not in environment:
            raise with_hint(
                TrainError("srun started several tasks, but MASTER_ADDR does not say where they meet"),
                'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500',
            )
        return {name: int(environment[slurm]) for name, slurm in SLURM.items()}
    return None


def local_rank() -> int:
    """This process's number on its machine."""
    settings = rank_settings(os.environ)
    return settings["LOCAL_RANK"] if settings else 0


def refuse_one_gpu(device: str | None) -> None:
    """Raise TrainError if `device`, as it was asked for, names one GPU and there are several ranks to share it."""
    settings = rank_settings(os.environ)
    if settings and settings["WORLD_SIZE"] > 1 and device is not None and device.startswith("cuda:"):
        raise with_hint(
            TrainError(f"--device {device} is one GPU, which {settings['WORLD_SIZE']} ranks cannot share"),
            "--device cuda, the GPU of each rank",
        )


@contextlib.contextmanager
def joined(device: torch.device, timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """Join the other processes for the length of the block: nccl between GPUs, gloo between CPUs.

    The block lets go of every DistributedDataParallel at its end. One that outlives its process group later waits for
    a thread of it, which may itself wait for the interpreter: the process never ends (pytorch#56297). Raises TrainError
    where the ranks do not meet, or no longer hear from each other.
    """
    settings = rank_settings(os.environ)
    if settings is None or settings["WORLD_SIZE"] == 1:
        yield ALONE
        return
    ranks = _join(settings["RANK"], settings["WORLD_SIZE"], device, timeout)
    leave = distributed.destroy_process_group
    try:
        yield ranks
    except BaseException as error:
        if device.type == "cuda":
            # NCCL takes down a connection together with the other ranks, which may not know that this one ends: it
            # would say nothing and keep them waiting.
            leave = distributed_c10d._abort_process_group
        _clear_frames(error)
        if _is_of_another(error):
            # Without the place in gloo's source, and its guess at what may be typical.
            reason = re.sub(r"^\[\S+\] ", "", _reason(error)).partition(" This is typically")[0]
            raise with_hint(
                TrainError(f"rank {ranks.number} ends, for it no longer hears from another rank: {reason}"),
                "see what the other ranks say; the same command again goes on from the newest checkpoint",
            ) from None
        raise
    finally:
        gc.collect()
        leave()


def _join(number: int, count: int, device: torch.device, timeout: timedelta) -> Ranks:
    options: dict[str, Any] = {}
    if device.type == "cuda":
        options["device_id"] = device  # NCCL connects the ranks at once, and knows where to wait
    try:
        store, _, _ = next(rendezvous("env://", number, count, timeout=TIMEOUT))
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=number,
            world_size=count,
            timeout=timeout,
            **options,
        )
    except distributed.DistBackendError as error:
        raise with_hint(
            TrainError(f"rank {number} on {device} cannot connect to the GPUs of the other ranks: {_reason(error)}"),
            "a GPU of its own for each rank; NCCL_DEBUG=INFO has NCCL say more",
        ) from None
    except (distributed.DistNetworkError, distributed.DistStoreError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise with_hint(
            TrainError(f"the ranks cannot meet at {place}: {_reason(error)}"),
            "set MASTER_PORT to a port that is free on the first rank's machine, the same for all ranks",
        ) from None
    return Ranks(number, count, PrefixStore("symbert", store), timeout)


def _is_of_another(error: BaseException) -> bool:
    """Whether this is how torch's store, NCCL or gloo says that a connection is closed, or nothing came over it."""
    kinds = distributed.DistNetworkError | distributed.DistStoreError | distributed.DistBackendError
    return isinstance(error, kinds) or (type(error) is RuntimeError and "gloo/transport" in str(error))


def _reason(error: BaseException) -> str:
    """The line that says most: the first, or what NCCL names as its last error."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((after for line, after in itertools.pairwise(lines) if line == "Last error:"), lines[0])


def _clear_frames(error: BaseException | None) -> None:
    """Drop what the frames behind an exception, and behind what it came of, still hold: a wrapper may be among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
