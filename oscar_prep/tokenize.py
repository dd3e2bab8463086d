"""Text → token ids, exactly as `tokenizers` gives them.

BERT's WordPiece is computed by nanotoken, some twenty times as fast and checked against `tokenizers` all the time
(docs/decisions/0012-lines-by-msgspec-ids-by-nanotoken.md); any other tokenizer by `tokenizers` itself.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from tokenizers import Tokenizer

from oscar_prep.tokenizer import TOKENIZER_FILE, CorpusTokenizer

if TYPE_CHECKING:
    from nanotoken import WordPieceTokenizer

# Of how many kept documents one is checked, and how many of its first characters: 64 KB take `tokenizers` 16 ms.
CHECKED_EVERY = 1000
CHECKED_CHARACTERS = 1 << 16
# Longer texts are encoded in pieces, for `tokenizers` takes some 450 bytes of memory for each token of a text.
PIECE_CHARACTERS = 1 << 20
# Where BERT's tokenizer never looks across. Not \v and \f, nor U+001C to U+001F: it deletes them, "a\vb" is one word.
_SEPARATOR = re.compile("[ \t\n\r]")
_BERTS_PARTS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}


def load_fast(tokenizer: CorpusTokenizer) -> "WordPieceTokenizer | str":
    """nanotoken's form of a tokenizer; where it cannot be had, the reason in words."""
    document = _read(tokenizer.folder / TOKENIZER_FILE)
    if reason := _not_berts(document):
        return reason
    try:
        from nanotoken import UnsupportedTokenizerError, WordPieceTokenizer
    except ImportError:
        return "nanotoken is not installed (pip install 'symbert[prepare]')"
    first, last = tokenizer.special_tokens["cls_token"], tokenizer.special_tokens["sep_token"]
    framed = {"type": "BertProcessing", "cls": [first.token, first.id], "sep": [last.token, last.id]}
    document |= {"added_tokens": [], "post_processor": framed, "truncation": None, "padding": None, "decoder": None}
    try:
        return WordPieceTokenizer.from_json(json.dumps(document))
    except UnsupportedTokenizerError as error:
        return f"nanotoken refuses it: {error}"


def _not_berts(document: dict[str, Any]) -> str | None:
    """What keeps a tokenizer from being BERT's kind, for which nanotoken was compared in full; None if nothing does."""
    for part, wanted in _BERTS_PARTS.items():
        found = (document.get(part) or {}).get("type")
        if found != wanted:
            return f"its {part} is {found}, not {wanted}"
    ordinary = [token["content"] for token in document.get("added_tokens") or [] if not token["special"]]
    return f"`{ordinary[0]}` was added to it, which may match inside words" if ordinary else None


def cut(text: str, longest: int) -> Iterator[str]:
    """The text in pieces whose ids are those of the text, each cut at the first separator behind `longest`."""
    start = 0
    while len(text) - start > longest and (separator := _SEPARATOR.search(text, start + longest)):
        yield text[start : separator.start()]
        start = separator.end()
    yield text[start:]


class Encoder:
    """Makes `[CLS] document [SEP]` of every document, without truncation.

    Special tokens written out in a document are text, not special tokens.
    """

    def __init__(self, tokenizer: CorpusTokenizer, fast: "WordPieceTokenizer | None") -> None:
        """`fast` is what `load_fast` gave; without it `tokenizers` encodes."""
        path = tokenizer.folder / TOKENIZER_FILE
        self._tokenizer = load_tokenizer(path)
        self._fast = fast
        self._may_cut = fast is not None or _not_berts(_read(path)) is None
        self._frame = [tokenizer.special_tokens[name].id for name in ("cls_token", "sep_token")]
        self.dtype = tokenizer.dtype

    @classmethod
    def of(cls, tokenizer: CorpusTokenizer) -> Self:
        """The fastest exact encoder for a tokenizer."""
        fast = load_fast(tokenizer)
        return cls(tokenizer, None if isinstance(fast, str) else fast)

    @property
    def is_checked(self) -> bool:
        """Whether another program than `tokenizers` encodes, so that `differs` has something to compare."""
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all documents one after the other, and the number of ids of each, specials included."""
        if self._fast is not None and all(len(text) <= PIECE_CHARACTERS for text in texts):
            ids, offsets = self._fast.encode_batch(texts, parallel=False)
            return ids.astype(self.dtype), np.diff(offsets)
        rows = [self._encode_in_pieces(text) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.concatenate([np.empty(0, self.dtype), *rows]), lengths

    def differs(self, text: str, ids: np.ndarray) -> bool:
        """Whether `tokenizers` gives other ids for a text than nanotoken gave.

        Of a text of more than CHECKED_CHARACTERS its start is encoded anew by both.
        """
        assert self._fast is not None
        if len(text) > CHECKED_CHARACTERS:
            text = text[:CHECKED_CHARACTERS]
            ids = self._fast.encode(text)
        return ids.tolist() != [self._frame[0], *self._ids(text), self._frame[1]]

    def _encode_in_pieces(self, text: str) -> np.ndarray:
        pieces = cut(text, PIECE_CHARACTERS) if self._may_cut else [text]
        parts = (
            self._ids(piece) if self._fast is None else self._fast.encode(piece, add_special_tokens=False)
            for piece in pieces
        )
        first, last = ([id_] for id_ in self._frame)
        return np.concatenate([np.asarray(part, self.dtype) for part in (first, *parts, last)])

    def _ids(self, text: str) -> list[int]:
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that takes whole documents and knows no special tokens in them."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document
