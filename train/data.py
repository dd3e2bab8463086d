"""From a packed corpus to masked batches, as pure functions of (seed, epoch, index).

Nothing here keeps state and nothing is drawn from a stream of random numbers: which sample stands at a position of
the training order, and which of its tokens are masked, are counter-based hashes of where they stand. So they depend
neither on batch size, workers and ranks nor on where a run was interrupted.

Shape suffixes: N samples, L tokens a sample, M masked tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

ROUNDS = 8
"""Feistel rounds; with 4 the order of a handful of samples is visibly biased."""

TRAINING_ORDER, TRAINING_MASKS, EVALUATION_MASKS, FIRST_WEIGHTS, DROPOUT = 1, 2, 3, 4, 5
"""What a random number is for: part of every key, so that no two uses share a stream."""


def mixed(words: Words) -> Words:
    """Hash 64-bit words, bijectively: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    words = words ^ (words >> np.uint64(30))
    words = words * np.uint64(0xBF58476D1CE4E5B9)
    words = words ^ (words >> np.uint64(27))
    words = words * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def key(*parts: int) -> int:
    """One 64-bit key from several non-negative integers, in order."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mixed(state + np.uint64(0x9E3779B97F4A7C15) + mixed(np.array([part], np.uint64)))
    return int(state[0])


def permuted(positions: Words, size: int, seed: int, epoch: int) -> Words:
    """Which sample stands at each of `positions` (all below `size`) in this epoch's order.

    A bijection of [0, size), without a list of it: a balanced Feistel network over the next power of 4, walked
    along its cycles until it falls below `size` (Black and Rogaway, 2002); fewer than four steps on average.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = np.array([key(TRAINING_ORDER, seed, epoch, number) for number in range(ROUNDS)], np.uint64)
    walked = _feistel(positions, half, low, keys)
    while (outside := np.flatnonzero(walked >= np.uint64(size))).size:
        walked[outside] = _feistel(walked[outside], half, low, keys)
    return walked


def _feistel(words: Words, half: np.uint64, low: np.uint64, keys: Words) -> Words:
    left, right = words >> half, words & low
    for round_key in keys:
        left, right = right, left ^ (mixed(right ^ round_key) & low)
    return (left << half) | right


@dataclass(frozen=True)
class TrainingOrder:
    """The endless order of training: each epoch holds every sample once, in an order of its own."""

    size: int
    seed: int

    def at(self, start: int, stop: int) -> tuple[Words, Words]:
        """The samples at positions `start` to `stop` of the run, and the epoch each belongs to."""
        positions = np.arange(start, stop, dtype=np.uint64)
        epochs, offsets = np.divmod(positions, np.uint64(self.size))
        samples = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            samples[now] = permuted(offsets[now], self.size, self.seed, int(epoch))
        return samples, epochs


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer."""

    size: int
    mask_id: int
    special_ids: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Masked samples, in memory: what the model sees, where it predicts, and what is right there."""

    input_ids: Ids
    """(N, L), with [MASK] and random tokens in place."""
    positions: Ids
    """(M,) indices into the N·L tokens, ascending."""
    labels: Ids
    """(M,) the tokens that stood there."""
    origins: Words
    """(N, 2) epoch and number of each sample."""

    def fingerprint(self) -> str:
        """16 hex digits that two batches share if they are of the same samples and epochs, in the same order."""
        return hashlib.sha256(self.origins.astype("<u8").tobytes()).hexdigest()[:16]

    def part(self, start: int, stop: int) -> "Batch":
        """Samples `start` to `stop`, with positions counted from the first of them."""
        length = self.input_ids.shape[1]
        first, last = np.searchsorted(self.positions, [start * length, stop * length])
        positions = self.positions[first:last] - start * length
        return Batch(self.input_ids[start:stop], positions, self.labels[first:last], self.origins[start:stop])

    def padded(self, samples: int, count: int) -> "Batch":
        """With so many samples and positions: added samples are zeros, added positions 0 with the label -100."""
        rows, missing = samples - len(self.input_ids), count - len(self.positions)
        return Batch(
            np.pad(self.input_ids, ((0, rows), (0, 0))),
            np.pad(self.positions, (0, missing)),
            np.pad(self.labels, (0, missing), constant_values=-100),
            self.origins,
        )


@dataclass(frozen=True)
class Masking:
    """Devlin et al. (2019, section 3.1): predict some of the tokens, hide most of those; never a special token.

    The draws of a token are a hash of (key, epoch, sample, position in the sample) and of nothing else.
    """

    probability: float
    mask_share: float
    random_share: float
    vocabulary: Vocabulary

    def __call__(self, tokens_NL: Ids, samples: Words, epochs: Words, key_parts: Sequence[int]) -> Batch:
        """Mask `tokens_NL`; returns a new batch and leaves the tokens as they are."""
        first = mixed(samples + mixed(epochs + np.uint64(key(*key_parts))))
        places = np.arange(tokens_NL.shape[1], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        draws_NL = mixed(first[:, None] + places[None, :])
        chosen_NL = (draws_NL >> np.uint64(32)) < np.uint64(round(self.probability * 2**32))
        chosen_NL &= ~np.isin(tokens_NL, self.vocabulary.special_ids, kind="table")
        positions = np.flatnonzero(chosen_NL)
        labels = tokens_NL.reshape(-1)[positions]
        input_ids = tokens_NL.copy()
        input_ids.reshape(-1)[positions] = self._seen(labels, draws_NL.reshape(-1)[positions])
        return Batch(input_ids, positions, labels, np.stack([epochs, samples], axis=1))

    def _seen(self, labels: Ids, draws: Words) -> Ids:
        fate = mixed(draws) >> np.uint64(32)
        masked = fate < np.uint64(round(self.mask_share * 2**32))
        random = ~masked & (fate < np.uint64(round((self.mask_share + self.random_share) * 2**32)))
        # The product of 32 random bits and the size, shifted: even over the vocabulary to 1 part in 100,000.
        tokens = ((mixed(mixed(draws) + np.uint64(1)) >> np.uint64(32)) * np.uint64(self.vocabulary.size)) >> np.uint64(
            32
        )
        return np.where(masked, self.vocabulary.mask_id, np.where(random, tokens.astype(np.int64), labels))
