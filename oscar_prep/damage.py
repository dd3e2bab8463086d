"""What is wrong with an input file, said alike by all that read one: the other files go on."""

import contextlib
import os
import shlex
from collections.abc import Iterator

from durable.errors import with_hint
from durable.remote import Place
from oscar_prep.errors import PrepareError

WHAT_TO_DO = "download the file again and give the same command: what is finished is kept"
TOO_WIDE = "requires too much memory"
"""In libzstd's words: a frame's window is beyond 2^27 bytes, the most that pyarrow decompresses."""


def damaged(path: Place, reason: object) -> PrepareError:
    """The error of an input file that is not what it was when it was published."""
    return with_hint(PrepareError(f"{path} is damaged: {reason}"), WHAT_TO_DO)


@contextlib.contextmanager
def reading(path: Place) -> Iterator[None]:
    """Turn an error of the system over an input file into a PrepareError that names it: the other files go on."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # pyarrow's, of what the file holds
            raise
        raise unreadable(path, error.errno) from None


def input_size(path: Place) -> int:
    """The bytes of an input file. Raises PrepareError if it is gone."""
    with reading(path):
        return path.stat().st_size


def unreadable(path: Place, number: int) -> PrepareError:
    """The error of an input file that the system does not give: it is gone, or nobody may read it."""
    return with_hint(
        PrepareError(f"{path} cannot be read: {os.strerror(number)}"),
        "put the file back, or make it readable, and give the same command: what is finished is kept",
    )


def not_decompressed(path: Place, error: OSError) -> PrepareError:
    """The error of an input file of which no more can be read or decompressed."""
    if error.errno is not None:
        return unreadable(path, error.errno)
    if TOO_WIDE in str(error):
        return with_hint(
            PrepareError(f"{path} is compressed with a zstandard window of more than 128 MB, which is not read"),
            f"zstd --decompress --long=31 --stdout {shlex.quote(str(path))} | zstd -o NEW.jsonl.zst, "
            "and put the new file in its place",
        )
    return damaged(path, "it is cut short" if "Truncated" in str(error) else error)
