"""The device of a run: what it computes natively, what makes it compute the same twice, and how its memory ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from durable.errors import with_hint
from train.errors import TrainError
from train.ranks import local_rank
from train.recipe import Recipe

NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16"})
"""CPU features with which bf16 products are at least as fast as fp32; without them they are emulated and slower."""
LACK_OF_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)
"""How the CPU's allocator, a GPU's, CUDA, its libraries and the loader of compiled kernels say it."""


def find_device(name: str | None) -> torch.device:
    """The device called `name`; None is a GPU if there is one, else the CPU. Raises TrainError if it is not there.

    Among several ranks `cuda` is the GPU of this one.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainError(f"--device {name} is no device, expected cpu or cuda") from None
    if device.type not in {"cpu", "cuda"}:
        raise TrainError(f"--device {name} is not supported, expected cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise with_hint(
            TrainError(f"--device {name} is not there: torch sees {torch.cuda.device_count()} CUDA devices"),
            "--device cpu",
        )
    if device.type == "cuda" and device.index is None:
        # A task that is shown its own GPU alone, as Slurm may bind them, finds it at index 0.
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return device


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with precision `auto` replaced by the type that this device computes natively."""
    if recipe.training.precision != "auto":
        return recipe
    with current(device):
        native = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else bool(NATIVE_BF16 & cpu_features())
    training = recipe.training.model_copy(update={"precision": "bf16" if native else "fp32"})
    return recipe.model_copy(update={"training": training})


def current(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Make a GPU the current one within the block: some of torch, and libraries, take the first one otherwise."""
    return torch.cuda.device(device) if device.index is not None and device.type == "cuda" else contextlib.nullcontext()


def is_compiled(recipe: Recipe, device: torch.device) -> bool:
    """Whether the model is compiled: as set, else where it pays."""
    return device.type == "cuda" if recipe.runtime.compile is None else recipe.runtime.compile


def sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on `device`; nobody waits for what a GPU has still to do.

    From memory that the kernel may page out, a copy to a GPU waits for all that is queued before it.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def is_lack_of_memory(error: RuntimeError) -> bool:
    """Whether a device has too little memory, also where torch.compile met with it and wraps what it was told."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in LACK_OF_MEMORY)


def seed_dropout(device: torch.device, seed: int) -> None:
    """Have what is drawn on `device` from here on depend on `seed` alone."""
    # torch.manual_seed would also queue a call for every device that is not in use, with a stack trace each time.
    if device.type == "cuda":
        with current(device):
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def repeatable(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """One CPU thread, or deterministic kernels on a GPU; torch's own state is put back afterwards.

    With `tf32` a GPU computes the products of float32 in TF32, without it in float32; a CPU always in float32.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        on_gpu = device.type == "cuda"
        kernels = deterministic_kernels() if on_gpu else contextlib.nullcontext()
        products = _products("tf32" if tf32 else "ieee") if on_gpu else contextlib.nullcontext()
        with current(device), kernels, products, torch.random.fork_rng(devices=[device] if on_gpu else []):
            yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Kernels that add in one order, and none chosen by timing; an operation that has no such kernel raises.

    To be entered before the first matrix product on a GPU.
    """
    # cuBLAS reads it when it makes its first handle; without it deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fills: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), fills.fill_uninitialized_memory
    # This also turns on the compiler's deterministic mode, which is read when a model is compiled.
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor first finds bugs, and took 40 % of a small model's time.
    fills.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        fills.fill_uninitialized_memory = before[1]


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    # Not by allow_tf32 or torch.set_float32_matmul_precision: some releases warn of these, and none lets both be mixed.
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


def cpu_features() -> frozenset[str]:
    """What the kernel says the CPU can do; empty where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
