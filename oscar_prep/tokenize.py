"""Text → token ids, exactly as the tokenizer would give them and many times as fast.

A BERT-style tokenizer never looks across white space or ASCII punctuation: it cleans, decomposes and lower-cases
character by character (a combining mark binds to no ASCII character that it strips), and its pre-tokenizer cuts at
both. So a batch of documents is cut into pieces at ASCII white space and around common punctuation marks, equal
pieces are found by hashing, and only pieces that were never seen before are given to the tokenizer. English repeats
itself: 18 million tokens of it hold a quarter of a million distinct pieces.
"""

import itertools
import string
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from oscar_prep.tokenizer import TOKENIZER_FILE, CorpusTokenizer

# A table that has grown beyond this is forgotten and begun anew, so that a worker's memory is bounded.
TABLE_BYTES = 256 << 20
BYTES_OF_AN_ENTRY = 200  # a dict entry, a str and the numbers of a row, measured on CPython 3.11

SEPARATORS = b" \t\n\r"
# The tokenizer deletes control characters, vertical tab and form feed among them: "a\vb" is one word.
DELETED = bytes([*(code for code in range(32) if code not in SEPARATORS), 127])
ORDINARY, SEPARATOR, PUNCTUATION = 0, 1, 2
KINDS = bytes(
    SEPARATOR if code in SEPARATORS else PUNCTUATION if chr(code) in string.punctuation else ORDINARY
    for code in range(256)
)
GENERAL_PUNCTUATION = b"\xe2\x80"
LOWER_CASE = bytes(range(256)).lower()
SAME_CASE = bytes(range(256))


class Encoder(Protocol):
    """`[CLS] document [SEP]` for every document of a batch, without truncation.

    Special tokens written out in a document are text, not special tokens.
    """

    dtype: np.dtype[Any]

    def encode(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all documents one after the other, and the number of ids of each, specials included."""
        ...


def encoder_of(tokenizer: CorpusTokenizer) -> Encoder:
    """The fastest exact encoder for a tokenizer."""
    return PlainEncoder(tokenizer) if tokenizer.why_no_table else TableEncoder(tokenizer)


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that takes whole documents and knows no special tokens in them."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


class PlainEncoder:
    """The tokenizer's own encoding; exact for every kind of tokenizer."""

    def __init__(self, tokenizer: CorpusTokenizer) -> None:
        self._tokenizer = load_tokenizer(tokenizer.folder / TOKENIZER_FILE)
        self._first = tokenizer.special_tokens["cls_token"].id
        self._last = tokenizer.special_tokens["sep_token"].id
        self.dtype = tokenizer.dtype

    def encode(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder."""
        encodings = self._tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        lengths = np.fromiter((len(encoding.ids) + 2 for encoding in encodings), np.int64, len(encodings))
        ids = np.empty(lengths.sum(), self.dtype)
        end = 0
        for encoding, length in zip(encodings, lengths.tolist(), strict=True):
            start, end = end, end + length
            ids[start] = self._first
            ids[start + 1 : end - 1] = encoding.ids
            ids[end - 1] = self._last
        return ids, lengths


class TableEncoder:
    """Looks pieces up in a table of those seen before; exact if the tokenizer names no reason against it."""

    def __init__(self, tokenizer: CorpusTokenizer, *, table_bytes: int = TABLE_BYTES) -> None:
        loaded = load_tokenizer(tokenizer.folder / TOKENIZER_FILE)
        self._case = LOWER_CASE if loaded.normalizer.lowercase else SAME_CASE
        self._specials = [tokenizer.special_tokens[name].id for name in ("cls_token", "sep_token")]
        self.dtype = tokenizer.dtype
        self._pieces = _PieceEncoder(loaded, loaded.model.continuing_subword_prefix)
        self._table_bytes = table_bytes
        self._forget()

    def encode(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder."""
        if self.bytes > self._table_bytes:
            self._forget()
        pieces, counts = cut_pieces(texts, self._case)
        encoded = pieces.dictionary_encode()
        rows = self._rows_of(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        return self._gather(_with_specials(rows, counts), counts)

    def _forget(self) -> None:
        self._row: dict[str, int] = {}
        self._ids = _Growing(self.dtype)
        self._ends = _Growing(np.dtype(np.int64))
        for identifier in self._specials:  # rows 0 and 1
            self._ids.extend(np.array([identifier]))
            self._ends.extend(np.array([self._ids.size]))
        self.bytes = 0

    def _rows_of(self, pieces: list[str]) -> np.ndarray:
        """The table's row of each piece, after adding those that are new."""
        get = self._row.get
        rows = np.fromiter(map(get, pieces, itertools.repeat(-1)), np.int64, len(pieces))
        new = np.flatnonzero(rows < 0)
        if len(new):
            added = [pieces[index] for index in new.tolist()]
            ids, lengths = self._pieces.encode(added)
            first = self._ends.size
            rows[new] = np.arange(first, first + len(new))
            self._row.update(zip(added, range(first, first + len(new)), strict=True))
            self._ends.extend(self._ids.size + np.cumsum(lengths))
            self._ids.extend(ids)
            self.bytes += sum(map(len, added)) + BYTES_OF_AN_ENTRY * len(added)
        return rows

    def _gather(self, rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of rows one after the other, and how many of them each document has."""
        ends = self._ends.values()
        starts = np.concatenate([[0], ends[:-1]])
        first = starts[rows]
        lengths = ends[rows] - first
        totals = np.cumsum(lengths)
        places = np.repeat(first - totals + lengths, lengths)
        places += np.arange(len(places))
        last = np.cumsum(counts + 2) - 1
        return self._ids.values()[places], np.diff(totals[last], prepend=0)


def cut_pieces(texts: pa.StringArray, case: bytes) -> tuple[pa.StringArray, np.ndarray]:
    """Every document cut at ASCII white space and around ASCII punctuation, and the number of pieces of each."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]].tobytes()
    offsets -= offsets[0]
    kept = data.translate(None, DELETED)
    if len(kept) < len(data):
        deleted = np.isin(np.frombuffer(data, np.uint8), np.frombuffer(DELETED, np.uint8))
        offsets -= np.concatenate([[0], np.cumsum(deleted)])[offsets]
        data = kept
    kinds = np.frombuffer(data.translate(KINDS), np.uint8)
    # A cut lies between two bytes where either is punctuation or white space, and between two documents.
    cuts = np.ones(len(kinds) + 1, bool)
    np.not_equal(kinds[1:] | kinds[:-1], ORDINARY, out=cuts[1:-1])
    cuts[offsets] = True
    if GENERAL_PUNCTUATION in data:
        _cut_at_general_punctuation(np.frombuffer(data, np.uint8), cuts)
    solid = kinds != SEPARATOR
    starts = np.flatnonzero(cuts[:-1] & solid)
    ends = np.flatnonzero(cuts[1:] & solid) + 1
    piece_offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(ends - starts, out=piece_offsets[1:])
    squeezed = pa.py_buffer(data.translate(case, SEPARATORS))
    pieces = pa.StringArray.from_buffers(len(starts), pa.py_buffer(piece_offsets), squeezed)
    return pieces, np.diff(np.searchsorted(starts, offsets))


def _cut_at_general_punctuation(characters: np.ndarray, cuts: np.ndarray) -> None:
    """Cut around dashes, quotation marks and the ellipsis, U+2010 to U+2027: they join many a pair of plain words.

    All are punctuation to the tokenizer and decompose into nothing else. In UTF-8 they are E2 80 90 to E2 80 A7.
    """
    first = np.flatnonzero(characters == GENERAL_PUNCTUATION[0])
    last = characters[first + 2]
    marks = first[(characters[first + 1] == GENERAL_PUNCTUATION[1]) & (last >= 0x90) & (last <= 0xA7)]
    cuts[marks] = True
    cuts[marks + 3] = True


def _with_specials(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows 0 and 1, [CLS] and [SEP], put around the rows of every document."""
    framed = np.empty(len(rows) + 2 * len(counts), np.int64)
    ends = np.cumsum(counts + 2)
    inside = np.ones(len(framed), bool)
    inside[ends - 1] = inside[ends - counts - 2] = False
    framed[inside] = rows
    framed[ends - counts - 2] = 0
    framed[ends - 1] = 1
    return framed


class _PieceEncoder:
    """Asks the tokenizer for the ids of pieces."""

    def __init__(self, tokenizer: Tokenizer, prefix: str) -> None:
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self._begins = np.ones(max(vocabulary.values()) + 1, bool)
        for token, identifier in vocabulary.items():
            self._begins[identifier] = not token.startswith(prefix)

    def encode(self, pieces: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all pieces one after the other, and the number of ids of each."""
        plain = np.fromiter(map(str.isascii, pieces), bool, len(pieces))
        lengths = np.empty(len(pieces), np.int64)
        ids_of_plain = self._encode_plain([piece for piece in pieces if piece.isascii()])
        lengths[plain] = np.diff(np.flatnonzero(self._begins[ids_of_plain]), append=len(ids_of_plain))
        others = self._encode_others([piece for piece in pieces if not piece.isascii()])
        lengths[~plain] = [len(ids) for ids in others]
        ids = np.empty(lengths.sum(), np.int64)
        is_plain = np.repeat(plain, lengths)
        ids[is_plain] = ids_of_plain
        ids[~is_plain] = [identifier for other in others for identifier in other]
        return ids, lengths

    def _encode_plain(self, pieces: list[str]) -> np.ndarray:
        """ASCII pieces in one text: each is one word to the tokenizer, and begins where no continuation stands."""
        (encoding,) = self._tokenizer.encode_batch_fast([" ".join(pieces)], add_special_tokens=False)
        return np.array(encoding.ids, np.int64)

    def _encode_others(self, pieces: list[str]) -> list[list[int]]:
        """Other pieces one by one: they may hold Unicode spaces, ideographs, or nothing that survives cleaning."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)]


class _Growing:
    """An array that is appended to, doubling its room as it grows."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._array = np.empty(1 << 16, dtype)
        self.size = 0

    def extend(self, values: np.ndarray) -> None:
        needed = self.size + len(values)
        if needed > len(self._array):
            larger = np.empty(max(needed, 2 * len(self._array)), self._array.dtype)
            larger[: self.size] = self._array[: self.size]
            self._array = larger
        self._array[self.size : needed] = values
        self.size = needed

    def values(self) -> np.ndarray:
        return self._array[: self.size]
