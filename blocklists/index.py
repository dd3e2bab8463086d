"""Blocklists as one file of hashes that all workers map into memory, asked about a batch of URLs at a time.

Matching is OSCAR's (ut1-rs): the host and every parent domain but the bare top-level one against the lists' hosts,
and scheme, host and path against the lists' addresses, which are taken for https. Both sides are spelled alike
(blocklists/canonical.py).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocklists.canonical import WORD, Addresses, Mask, Positions, canonical, canonical_batches
from blocklists.compile import checked, compile_folder
from blocklists.errors import BlocklistError
from blocklists.hashing import Hashes, hash_spans
from blocklists.ut1 import no_such_category


class Judgement(NamedTuple):
    """What the lists say of N URLs: `blocked` where one names it; `bad` where it is no URL with a host."""

    blocked: Mask
    bad: Mask


class Found(NamedTuple):
    """The entries that name some of N URLs: the row of each and the number of its set; `bad` as in Judgement."""

    rows: Positions
    sets: npt.NDArray[np.uint16]
    bad: Mask


@dataclass(frozen=True)
class Match:
    """One entry that names a URL."""

    entry: str
    kind: str
    """`host`, `parent domain` or `address`."""
    categories: tuple[str, ...]


class Index:
    """The compiled lists; immutable, and pickled as nothing: every process opens the file for itself."""

    def __init__(self, content: memoryview, where: str) -> None:
        header, start = checked(content, where)
        self.where = where
        self.header = header
        self.sha256: str = header["sha256"]
        """Of the entries and their categories: two indexes with the same hash judge alike."""
        self.categories: tuple[str, ...] = tuple(header["categories"])
        self.aliases: dict[str, str] = header["aliases"]
        count, width = header["entries"], header["filter_width"]
        self._hashes: Hashes = np.frombuffer(content, "<u8", count, start)
        self._sets = np.frombuffer(content, "<u2", count, start + count * 8)
        self._filter = np.frombuffer(content, np.uint8, (1 << width) // 8, start + count * 10)
        self._shift = np.uint64(64 - width)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map an index into memory. Raises BlocklistError if it is none, of another format, or damaged."""
        if not path.is_file():
            raise BlocklistError(f"{path} does not exist, expected a blocklist index or a folder of lists")
        if not path.stat().st_size:
            raise BlocklistError(f"{path} is empty, expected a blocklist index")
        return cls(np.memmap(path, np.uint8, "r").data, str(path))

    @classmethod
    def of_folder(cls, folder: Path, wanted: Sequence[str] | None = None) -> Self:
        """Compile a folder of lists in memory. Raises BlocklistError."""
        return cls(memoryview(compile_folder(folder, wanted)), str(folder))

    def __len__(self) -> int:
        return len(self._hashes)

    def resolved(self, names: Collection[str]) -> list[str]:
        """Category names with aliases followed. Raises BlocklistError for one that the index has not."""
        resolved = [self.aliases.get(name, name) for name in names]
        for name in resolved:
            if name not in self.categories:
                raise no_such_category(self.where, name, self.categories)
        return resolved

    def judge(self, urls: pa.Array | pa.ChunkedArray, categories: Collection[str] | None = None) -> Judgement:
        """Whether the lists of `categories` (all by default) name each of N URLs; nulls are `bad`."""
        found = self.find(urls)
        blocked = np.zeros(len(found.bad), bool)
        blocked[found.rows[self._wanted_sets(categories)[found.sets]]] = True
        return Judgement(blocked, found.bad)

    def find(self, urls: pa.Array | pa.ChunkedArray) -> Found:
        """Every entry of any category that names one of N URLs."""
        rows, sets, bad = [np.zeros(0, np.int64)], [np.zeros(0, np.uint16)], [np.zeros(0, bool)]
        first = 0
        for addresses in canonical_batches(urls):
            start, end, row = _candidates(addresses)
            places, candidates = self._found(hash_spans(addresses.text, start, end))
            # The empty spans of bad rows have a hash too.
            good = ~addresses.bad[row[candidates]]
            rows.append(row[candidates[good]] + first)
            sets.append(self._sets[places[good]])
            bad.append(addresses.bad)
            first += len(addresses.bad)
        return Found(np.concatenate(rows), np.concatenate(sets), np.concatenate(bad))

    def categories_of(self, number: int) -> tuple[str, ...]:
        """The names of the categories in a set of the index."""
        return tuple(self.categories[category] for category in self.header["sets"][number])

    def matches(self, url: str) -> list[Match] | None:
        """Every entry that names one URL, the host's first; None if it is no URL with a host."""
        address = canonical(url)
        if address is None:
            return None
        texts = [*_domains(address.host), address.text]
        kinds = ["host", *["parent domain"] * (len(texts) - 2), "address"]
        ends = np.cumsum([len(text) for text in texts])
        joined = np.frombuffer("".join(texts).encode("ascii") + bytes(WORD), np.uint8)
        places, candidates = self._found(hash_spans(joined, np.r_[0, ends[:-1]], ends))
        return [
            Match(texts[row], kinds[row], self.categories_of(int(self._sets[place])))
            for place, row in zip(places.tolist(), candidates.tolist(), strict=True)
        ]

    def _found(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """The places in the index of the hashes that are there, and which of `hashes` they are."""
        bits = (hashes >> self._shift).astype(np.int64)
        likely = np.flatnonzero(self._filter[bits >> 3] >> (bits & 7).astype(np.uint8) & 1)
        asked = hashes[likely]
        places = np.searchsorted(self._hashes, asked)
        there = self._hashes[np.minimum(places, len(self._hashes) - 1)] == asked
        return places[there], likely[there]

    def _wanted_sets(self, categories: Collection[str] | None) -> Mask:
        wanted = set(self.categories if categories is None else self.resolved(categories))
        return np.array(
            [any(self.categories[number] in wanted for number in numbers) for numbers in self.header["sets"]]
        )


def _domains(host: str) -> Iterator[str]:
    """The host and every parent domain but the bare top-level one."""
    labels = host.split(".")
    for first in range(max(len(labels) - 1, 1)):
        yield ".".join(labels[first:])


def _candidates(addresses: Addresses) -> tuple[Positions, Positions, Positions]:
    """The spans that a list may name (host, parent domains, address) and the row of each."""
    dots = np.flatnonzero(addresses.text == ord("."))
    first = np.searchsorted(dots, addresses.host_start)
    parents = np.maximum(np.searchsorted(dots, addresses.host_end) - first - 1, 0)
    rows = np.arange(len(parents))
    parent_rows = np.repeat(rows, parents)
    nth = np.arange(len(parent_rows)) - np.repeat(np.cumsum(parents) - parents, parents)
    parent_start = dots[first[parent_rows] + nth] + 1
    start = np.concatenate([addresses.host_start, addresses.start, parent_start])
    end = np.concatenate([addresses.host_end, addresses.end, addresses.host_end[parent_rows]])
    return start, end, np.concatenate([rows, rows, parent_rows])
