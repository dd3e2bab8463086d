"""OSCAR's quality warnings, computed for documents that carry none.

The rules are those of ungoliant, the program that made OSCAR (Abadji et al. 2022, arXiv 2201.06642, section 4.2; the
numbers are in its source). Lines are what Rust's `str::lines` returns; a line is short by its characters in
`short_sentences`, but by its bytes in `header` and `footer`; every share is rounded down before it is compared. What
differs: letters and marks follow this Python's Unicode tables, which are newer than ungoliant's.
"""

import functools
import itertools
import sys
import unicodedata

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# In the order in which ungoliant appends them.
WARNINGS = ("tiny", "short_sentences", "header", "footer", "noisy")
TINY_BELOW_LINES = 5
SHORT_LINE = 100
EDGE_SHARE = 0.2  # the first and the last fifth of the lines may be a header or a footer
# The columns of half a megabyte stay in the cache: 150 MB/s on one core, against 19 MB/s for 20 MB at once.
CHUNK = 1 << 19

NEWLINE, CARRIAGE_RETURN, ASCII_END = 0x0A, 0x0D, 0x80


def quality_warnings(content: pa.Array) -> pa.ListArray:
    """The warnings of each document of a string array, in the form of OSCAR's own field: null where there is none.

    - `tiny`: fewer than 5 lines.
    - `short_sentences`: more than half of the lines have at most 100 characters.
    - `header`, `footer`: more than half of the first (last) fifth of the lines have fewer than 100 bytes.
    - `noisy`: more than half of the characters are neither letters nor marks (Unicode categories L and M).

    A null document has no warnings.
    """
    documents = content.cast(pa.large_string())
    offsets = np.frombuffer(documents.buffers()[1], dtype=np.int64)[documents.offset :][: len(documents) + 1]
    chunks = np.concatenate(([0], 1 + np.flatnonzero(np.diff(offsets[:-1] // CHUNK)), [len(documents)]))
    found = [_of_chunk(documents[start:end]) for start, end in itertools.pairwise(chunks.tolist())]
    return pa.concat_arrays(found)


def _of_chunk(content: pa.LargeStringArray) -> pa.ListArray:
    offsets, text = _buffers(content.fill_null(""))
    lines = _Lines(offsets, text)
    edge = np.floor(lines.count * EDGE_SHARE).astype(np.int64)
    short_in_bytes = lines.bytes < SHORT_LINE
    in_header = lines.index < edge[lines.document]
    in_footer = lines.index >= (lines.count - edge)[lines.document]
    flags = np.column_stack(
        (
            lines.count < TINY_BELOW_LINES,
            lines.counted(lines.characters <= SHORT_LINE) > lines.count // 2,
            lines.counted(short_in_bytes & in_header) > edge // 2,
            lines.counted(short_in_bytes & in_footer) > edge // 2,
            _noisy(offsets, text),
        )
    )
    flags[np.asarray(content.is_null())] = False
    return _as_lists(flags)


class _Lines:
    """Every line of every document, as columns: its document, its index there, its length in characters and bytes."""

    def __init__(self, offsets: NDArray[np.int64], text: NDArray[np.uint8]) -> None:
        newlines = np.flatnonzero(text == NEWLINE)
        first, after = offsets[:-1], offsets[1:]
        unterminated = np.flatnonzero(after > first)
        unterminated = unterminated[text[after[unterminated] - 1] != NEWLINE]
        # An unterminated line ends where the next document's first newline may stand, and comes before it.
        ends = np.concatenate((after[unterminated], newlines))
        documents = np.concatenate((unterminated, np.searchsorted(after, newlines, side="right")))
        order = np.argsort(ends, kind="stable")
        ends, self.document = ends[order], documents[order]

        self.count = np.bincount(self.document, minlength=len(first))
        first_line = np.cumsum(self.count) - self.count
        self.index = np.arange(len(ends)) - first_line[self.document]
        starts = np.where(self.index == 0, first[self.document], np.roll(ends, 1) + 1)
        terminated = order >= len(unterminated)
        ends = ends - (terminated & (ends > starts) & (text[ends - 1] == CARRIAGE_RETURN))

        characters_before = _counted_before(_is_first_byte(text))
        self.bytes = ends - starts
        self.characters = characters_before[ends] - characters_before[starts]

    def counted(self, flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many lines of each document are flagged."""
        return np.bincount(self.document[flags], minlength=len(self.count))


def _noisy(offsets: NDArray[np.int64], text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    first_bytes = _is_first_byte(text)
    letters = _letters_and_marks()
    is_letter = letters[:256][text]
    beyond_ascii = text >= ASCII_END
    # What is left of valid UTF-8 without its ASCII is valid UTF-8, and short in English.
    codes = np.frombuffer(text[beyond_ascii].tobytes().decode().encode("utf-32-le"), dtype=np.uint32)
    is_letter[beyond_ascii] = False
    is_letter[beyond_ascii & first_bytes] = letters[codes]
    others = _counted_before(first_bytes & ~is_letter)
    characters = _counted_before(first_bytes)
    return others[offsets[1:]] - others[offsets[:-1]] > (characters[offsets[1:]] - characters[offsets[:-1]]) // 2


def _as_lists(flags: NDArray[np.bool_]) -> pa.ListArray:
    counts = flags.sum(axis=1)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    names = pa.array(WARNINGS).take(pa.array(np.nonzero(flags)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names, mask=pa.array(counts == 0))


def _buffers(documents: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    _, offset_buffer, text_buffer = documents.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[documents.offset :][: len(documents) + 1]
    text = np.frombuffer(text_buffer or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], text


def _is_first_byte(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (text & 0xC0) != 0x80


def _counted_before(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(flags, dtype=np.int64)))


@functools.cache
def _letters_and_marks() -> NDArray[np.bool_]:
    return np.array([unicodedata.category(chr(code))[0] in "LM" for code in range(sys.maxunicode + 1)])
