"""Token ids → exact rows: documents run on, samples start and end anywhere."""

import numpy as np


class Packer:
    """Cuts one stream of ids into rows of `length`; what is left at the end is the tail."""

    def __init__(self, length: int, dtype: np.dtype) -> None:
        self._length = length
        self._left = np.empty(0, dtype)
        self.tokens = 0

    @property
    def tail(self) -> int:
        """Tokens after the last full row."""
        return len(self._left)

    def add(self, ids: np.ndarray) -> np.ndarray:
        """Take further ids; returns the rows that they complete, shape (rows, length)."""
        self.tokens += len(ids)
        stream = np.concatenate([self._left, ids])
        full = len(stream) // self._length * self._length
        self._left = stream[full:].copy()
        return stream[:full].reshape(-1, self._length)
