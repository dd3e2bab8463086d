"""The processes of one run: one, unless torchrun or srun started several."""

import contextlib
import gc
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from durable.errors import with_hint
from train.errors import TrainError

# What srun tells its tasks, by torchrun's names for the same.
SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this is, and what they do together; with one process, all of it is nothing."""

    number: int
    count: int

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
        """A block that all processes leave together: where one of them refuses, the others do not wait for it.

        Raises TrainError in those that had nothing to refuse themselves.
        """
        refused = True
        try:
            yield
            refused = False
        finally:
            one_refused = self.any(refused, device)
        if one_refused:
            raise TrainError(f"rank {self.number} ends, for another rank has refused to train: see what it says")

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


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


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes for the length of the block: nccl between GPUs, gloo between CPUs.

    The block lets go of every DistributedDataParallel at its end. One that outlives its process group later waits for
    a thread of it, which may itself wait for the interpreter: the process never ends (pytorch#56297).
    """
    settings = rank_settings(os.environ)
    if settings is None or settings["WORLD_SIZE"] == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method="env://",
            rank=settings["RANK"],
            world_size=settings["WORLD_SIZE"],
        )
    except distributed.DistNetworkError as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0]
        raise with_hint(
            TrainError(f"the ranks cannot meet at {place}: {reason}"),
            "set MASTER_PORT to a port that is free on the first rank's machine, the same for all ranks",
        ) from None
    try:
        yield Ranks(settings["RANK"], settings["WORLD_SIZE"])
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        gc.collect()
        distributed.destroy_process_group()


def _clear_frames(error: BaseException | None) -> None:
    """Drop what the frames behind an exception, and behind what it came of, still hold: a wrapper may be among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
