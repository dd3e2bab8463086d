"""UT1 lists asked about URLs, as OSCAR asks them: the host and its parent domains, and the exact URL.

`domains` files hold hosts: one blocks its subdomains too; a bare top-level domain blocks nothing. `urls` files
hold addresses without their scheme, as `host/path`: they block exactly that address.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from blocklists.errors import BlocklistError
from durable.errors import with_hint


class Blocklists:
    """The hosts and addresses of some categories, in memory."""

    def __init__(self, hosts: frozenset[str], addresses: frozenset[str], sha256: str) -> None:
        self._hosts = hosts
        self._addresses = addresses
        self.sha256 = sha256
        """Of everything that was read: two folders with the same hash judge alike."""

    @classmethod
    def load(cls, folder: Path, categories: Sequence[str]) -> Self:
        """Read `folder/category/{domains,urls}`. Raises BlocklistError if a category is not there."""
        hosts: set[str] = set()
        addresses: set[str] = set()
        digest = hashlib.sha256()
        for category in sorted(categories):
            files = [folder / category / name for name in ("domains", "urls")]
            if not any(path.is_file() for path in files):
                raise _no_such_category(folder, category)
            for path, entries, canonical in zip(files, (hosts, addresses), (_host_of, _address_of), strict=True):
                if path.is_file():
                    content = path.read_bytes()
                    digest.update(f"{category}/{path.name}\0{len(content)}\0".encode() + content)
                    entries.update(canonical(line) for line in _entries(content))
        return cls(frozenset(hosts - {""}), frozenset(addresses - {""}), digest.hexdigest())

    def blocked(self, urls: pa.Array) -> np.ndarray:
        """A boolean for each URL: true where a list names its host, a parent domain of it, or itself.

        A URL that is missing or is none is not blocked.
        """
        return np.fromiter((url is not None and self._is_blocked(url) for url in urls.to_pylist()), bool, len(urls))

    def _is_blocked(self, url: str) -> bool:
        parts = _canonical(url)
        if parts is None:
            return False
        host, rest = parts
        return any(domain in self._hosts for domain in _domains(host)) or host + rest in self._addresses


def _domains(host: str) -> Iterator[str]:
    """The host and every parent domain but the bare top-level one."""
    labels = host.split(".")
    for first in range(max(len(labels) - 1, 1)):
        yield ".".join(labels[first:])


def _canonical(url: str) -> tuple[str, str] | None:
    """Host and the rest (path and query) by WHATWG's rules; None if it is no URL with a host."""
    import can_ada

    try:
        parsed = can_ada.parse(url)
    except ValueError:
        return None
    host = parsed.hostname.rstrip(".")
    return (host, parsed.pathname.rstrip("/") + parsed.search) if host else None


def _host_of(entry: str) -> str:
    parts = _canonical(f"http://{entry.lstrip('.')}")
    return parts[0] if parts else ""


def _address_of(entry: str) -> str:
    parts = _canonical(f"http://{entry}")
    return "".join(parts) if parts else ""


def _entries(content: bytes) -> Iterator[str]:
    for line in content.decode("utf-8", errors="replace").splitlines():
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry.removeprefix("0.0.0.0") if entry.startswith("0.0.0.0") and len(entry) > 7 else entry


def _no_such_category(folder: Path, category: str) -> BlocklistError:
    if not folder.is_dir():
        return BlocklistError(f"{folder} does not exist, expected a folder of UT1 lists")
    there = ", ".join(sorted(path.parent.name for path in folder.glob("*/domains"))) or "none"
    return with_hint(
        BlocklistError(f"{folder} holds no lists of the category `{category}`"), f"categories there: {there}"
    )
