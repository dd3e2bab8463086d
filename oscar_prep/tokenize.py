"""Text → token ids."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from oscar_prep.tokenizer import TOKENIZER_FILE, CorpusTokenizer


class Encoder:
    """`[CLS] document [SEP]` for every document of a batch, without truncation.

    Special tokens written out in a document are text, not special tokens.
    """

    def __init__(self, tokenizer: CorpusTokenizer) -> None:
        self._tokenizer = load_encoder(tokenizer.folder / TOKENIZER_FILE)
        self._first = tokenizer.special_tokens["cls_token"].id
        self._last = tokenizer.special_tokens["sep_token"].id
        self.dtype = tokenizer.dtype

    def encode(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all documents one after the other, and the number of ids of each, specials included."""
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


def load_encoder(path: Path) -> Tokenizer:
    """A tokenizer that takes whole documents and knows no special tokens in them."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
