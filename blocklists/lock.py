"""The lock file of a fetched folder: where its lists came from, when, and the sha256 of each."""

from pathlib import Path
from typing import Any

from blocklists.errors import BlocklistError
from durable.checked import NameInside, Shape, checked, read_json
from durable.errors import with_hint
from durable.files import file_sha256

LOCK_NAME = "blocklists.lock.json"
LICENCE = "CC BY-SA 4.0"
ATTRIBUTION = "UT1 blacklists, Université Toulouse Capitole, https://dsi.ut-capitole.fr/blacklists/"


class _Lock(Shape):
    """What is read of it again."""

    files: dict[NameInside, str]


def lock_of(folder: Path) -> dict[str, Any]:
    """Licence, second names and hashes of the lists in a folder."""
    files = sorted(path for path in folder.glob("*/*") if path.is_file() and not path.parent.is_symlink())
    return {
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
        "aliases": {path.name: path.readlink().name for path in sorted(folder.iterdir()) if path.is_symlink()},
        "files": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    }


def read_lock(folder: Path) -> dict[str, Any] | None:
    """The lock file of a fetched folder, its files checked against it; None if there is none.

    Raises BlocklistError, naming the file, if a list is not what was fetched.
    """
    path = folder / LOCK_NAME
    if not path.is_file():
        return None
    again = f"symbert blocklists fetch --out {folder}, or delete the lock file to use lists of your own"
    lock: dict[str, Any] = read_json(path, BlocklistError, again)
    checked(_Lock, lock, path, BlocklistError, again)
    for name, sha256 in lock["files"].items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise with_hint(
                BlocklistError(f"{folder / name} is not the file that {path} pins"),
                again,
            )
    return lock
