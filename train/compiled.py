"""torch.compile's cache of shared libraries, checked before it is used.

A run that is killed while it compiles may leave a library that is cut. torch takes it for whole: every later run ends
by the dynamic linker's refusal, or by a bus error without a word (pytorch#180841).
"""

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from durable.errors import with_hint
from train.device import is_lack_of_memory
from train.errors import TrainError

ELF = b"\x7fELF\x02\x01"
"""Magic, 64 bits, little-endian."""
HEADER_SIZE = 64
SECTIONS_OFFSET, SECTIONS_COUNT = 0x28, 0x3A
COMPILERS = ("torch._dynamo", "torch._inductor")
LIBRARIES = (".so", ".o")


def cache_folder() -> Path:
    """Where torch keeps what it has compiled: TORCHINDUCTOR_CACHE_DIR, or a folder of the user's in /tmp."""
    # Only runs that compile wait the second that this takes.
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir())


def drop_cut_libraries(notice: Callable[[str], None]) -> None:
    """Delete what no process is writing and is cut, so that torch makes it anew; `notice` is told of each."""
    if sys.platform != "linux":
        return
    folder = cache_folder()
    for path in sorted(folder.rglob("*")):
        if path.suffix in LIBRARIES and _is_cut(path):
            with _unused(folder, path) as unused:
                if unused and _is_cut(path):
                    path.unlink(missing_ok=True)
                    notice(f"{path} was cut, as a killed run of torch.compile leaves it: it is compiled anew")


@contextlib.contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Turn what torch.compile cannot do on this machine, such as without a C++ compiler, into a TrainError.

    A lack of memory is none of it: a smaller micro-batch may do.
    """
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(COMPILERS) or is_lack_of_memory(error):
            raise
        reason = " ".join([*str(error).splitlines(), type(error).__name__][:2])
        folder = cache_folder()
        raise with_hint(
            TrainError(f"torch.compile, whose cache is {folder}, fails: {reason}"),
            f"rm -r {folder}, should a file of it be damaged; or --set runtime.compile=false",
        ) from None


def _is_cut(path: Path) -> bool:
    """Whether a library ends before its table of sections, which linkers write last."""
    try:
        with path.open("rb") as file:
            header, size = file.read(HEADER_SIZE), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    if len(header) < HEADER_SIZE or not any(header):
        return True
    if not header.startswith(ELF):
        return False
    (offset,) = struct.unpack_from("<Q", header, SECTIONS_OFFSET)
    entry_size, entries = struct.unpack_from("<HH", header, SECTIONS_COUNT)
    return not offset or size < offset + entry_size * entries


@contextlib.contextmanager
def _unused(folder: Path, path: Path) -> Iterator[bool]:
    """Hold torch's own lock on a library, named by the first part of its name; False where another process has it."""
    lock = folder / "locks" / f"{path.name.partition('.')[0]}.lock"
    lock.parent.mkdir(exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
