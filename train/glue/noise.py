"""Validation sentences with noise: how well does a fine-tuned model hold up on damaged text?

Kowsher et al. (2024, arXiv 2412.00359) claim an advantage on noisy data without a published recipe; these three kinds
are symbert's own. Noise is a function of (seed, split, sentence number, row), so every model meets the same.
"""

import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from train.glue.read import Split, TaskData

Noise = Callable[[list[str], float, np.random.Generator], list[str]]
PURPOSE = 3
"""Part of every key, so that noise shares no stream with order and dropout."""


def typos(words: list[str], rate: float, random: np.random.Generator) -> list[str]:
    """Each word with probability `rate` gets one edit: a letter put in, taken out, replaced, or two exchanged.

    An edit that would leave the word as it was is not among those drawn from.
    """
    hit = random.random(len(words)) < rate
    return [_edited(word, random) if is_hit else word for word, is_hit in zip(words, hit, strict=True)]


def drop(words: list[str], rate: float, random: np.random.Generator) -> list[str]:
    """Each word is left out with probability `rate`; where that would leave none, the first stays."""
    kept = random.random(len(words)) >= rate
    return [word for word, keep in zip(words, kept, strict=True) if keep] or words[:1]


def swap(words: list[str], rate: float, random: np.random.Generator) -> list[str]:
    """Neighbours change places so that the expected share of the words that move is `rate`; no word moves twice.

    Each of the n - 1 pairs of neighbours is exchanged with probability rate·n / 2(n - 1), and where n > 2 at most 1/2.
    From left to right: s for the first pair, s / (1 - s) for the next where the pair before it, which holds one of the
    same words, stayed as it was.
    """
    swapped, place, pairs = list(words), 0, len(words) - 1
    if pairs < 1:
        return swapped
    share = min(rate * len(words) / (2 * pairs), 0.5 if pairs > 1 else 1.0)
    draws = random.random(pairs)
    while place < pairs:
        hit = draws[place] < (share / (1 - share) if place else share)
        if hit:
            swapped[place : place + 2] = swapped[place + 1], swapped[place]
        place += 2 if hit else 1
    return swapped


NOISES: Mapping[str, Noise] = MappingProxyType({"typos": typos, "drop": drop, "swap": swap})


def noisy(data: TaskData, kind: str, rate: float, seed: int) -> TaskData:
    """The validation splits of a task, damaged; blanks come out single."""
    splits = {
        name: _damaged(split, NOISES[kind], rate, (seed, place))
        for place, (name, split) in enumerate(data.validation.items())
    }
    return replace(data, splits=splits)


def _damaged(split: Split, noise: Noise, rate: float, place: tuple[int, int]) -> Split:
    columns = []
    for number, column in enumerate(split.text):
        rows = []
        for row, text in enumerate(column):
            random = np.random.Generator(np.random.Philox(np.random.SeedSequence((PURPOSE, *place, number, row))))
            rows.append(" ".join(noise(text.split(), rate, random)))
        columns.append(rows)
    return replace(split, text=tuple(columns))


def _edited(word: str, random: np.random.Generator) -> str:
    place = int(random.integers(len(word)))
    letter = string.ascii_lowercase[random.integers(26)]
    edits = [word[:place] + letter + word[place:], word[:place] + letter + word[place + 1 :]]
    if len(word) > 1:
        first = min(place, len(word) - 2)
        edits.append(word[:place] + word[place + 1 :])
        edits.append(word[:first] + word[first + 1] + word[first] + word[first + 2 :])
    edits = [edit for edit in edits if edit != word]
    return edits[random.integers(len(edits))]
