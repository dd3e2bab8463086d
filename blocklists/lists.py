"""Some categories of UT1, asked about the URLs of documents."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from blocklists.canonical import Mask
from blocklists.index import Index


class Named(NamedTuple):
    """What lists say of N URLs: the categories of each row that is named, and which rows are no URL with a host."""

    categories: dict[int, list[str]]
    bad: Mask


class Blocklists:
    """An index, or a folder of lists compiled in memory, of which some categories are wanted."""

    def __init__(self, index: Index, categories: Collection[str]) -> None:
        """Raises BlocklistError if the index has not all of `categories`."""
        self._index = index
        self._wanted = set(index.resolved(categories))
        self.sha256 = index.sha256
        """Of the entries and their categories: two with the same hash judge alike."""

    @classmethod
    def load(cls, path: Path, categories: Collection[str]) -> Self:
        """Open an index, or compile the `categories` of a folder. Raises BlocklistError."""
        index = Index.of_folder(path, list(categories)) if path.is_dir() else Index.open(path)
        return cls(index, categories)

    def blocked(self, urls: pa.Array) -> Mask:
        """A boolean for each URL: true where a wanted category names it. What is no URL is not blocked."""
        return self._index.judge(urls, self._wanted).blocked

    def named(self, urls: pa.Array) -> Named:
        """The wanted categories that name each URL, in the order of the index."""
        found = self._index.find(urls)
        categories: dict[int, set[str]] = {}
        for row, number in zip(found.rows.tolist(), found.sets.tolist(), strict=True):
            held = self._wanted.intersection(self._index.categories_of(number))
            if held:
                categories.setdefault(row, set()).update(held)
        in_order = self._index.categories
        return Named(
            {row: [name for name in in_order if name in held] for row, held in sorted(categories.items())},
            np.asarray(found.bad),
        )
