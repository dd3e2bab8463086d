"""What this machine offers a process: cores, memory and GPUs."""

import contextlib
import os


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that can be had without swapping; all there are, where the kernel does not say."""
    with contextlib.suppress(FileNotFoundError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpu_names(count: int) -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls each of the `count` GPUs that this process sees.

    Where the variable is set, its entries: numbers, UUIDs or MIG instances. Of the latter CUDA shows a process only
    the first, but every process may have another. It passes over what follows an entry that it does not know.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return tuple(map(str, range(count)))
    entries = tuple(entry.strip() for entry in given.split(","))
    return entries if count and all(entry.startswith("MIG-") for entry in entries) else entries[:count]
