"""A small real tokenizer, and OSCAR-shaped shards written by the tests."""

import gzip
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from oscar_prep.configuration import Configuration
from oscar_prep.inputs import InputFile
from oscar_prep.record import Budget, Unit, UnitRecord
from oscar_prep.shards import read_rows
from oscar_prep.tokenize import Encoder
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.unit import UnitProcessor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "quick", "brown", "fox", "jump", "##s", "##ed", "over", "lazy", "dog", "café", "日", "本"]
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uncased WordPiece tokenizer that knows every ASCII letter, so that few words are unknown."""
    pieces = [*SPECIAL, *CHARACTERS, *(f"##{letter}" for letter in CHARACTERS), *WORDS]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> CorpusTokenizer:
    return CorpusTokenizer.find(str(tokenizer_folder))


@pytest.fixture(scope="session")
def oscar() -> Callable[..., dict[str, Any]]:
    """Makes a record of OSCAR 23.01 that every rule of the paper keeps; keywords replace its metadata."""

    def make(content: Any = "the quick brown fox", number: int = 0, **metadata: Any) -> dict[str, Any]:
        return {
            "content": content,
            "warc_headers": {
                "warc-record-id": f"<urn:uuid:{number:08}>",
                "warc-target-uri": f"https://example.org/{number}",
            },
            "metadata": {"harmful_pp": 500.0, "quality_warnings": None, "categories": None, **metadata},
        }

    return make


@pytest.fixture(scope="session")
def write_shard() -> Callable[..., Path]:
    """Writes records (or raw lines) to a file, compressed by its name."""

    def write(path: Path, records: list[Any]) -> Path:
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in records]
        data = b"".join(line + b"\n" for line in lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(compressed(data, path.suffix))
        return path

    return write


def compressed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix in {".zst", ".zstd"}:
        return pa.Codec("zstd").compress(data, asbytes=True)
    return data


@pytest.fixture
def process(tmp_path: Path, tokenizer: CorpusTokenizer) -> Callable[..., tuple[UnitRecord, np.ndarray]]:
    """Makes one unit in this process; returns its record and its training rows. Keywords are settings."""

    def run(path: Path, budget: Budget | None = None, **settings: Any) -> tuple[UnitRecord, np.ndarray]:
        configuration = Configuration(**{"sequence_length": 8, "validation_samples": 0, **settings})
        out = tmp_path / "unit"
        processor = UnitProcessor(out, configuration, Encoder.of(tokenizer))
        unit = Unit(InputFile(path, path.name), 0, 1)
        record = processor.process(unit, budget or Budget(), lambda *_: None)
        length = configuration.sequence_length
        rows = list(read_rows(out / record.train.file, length))
        return record, np.concatenate(rows) if rows else np.empty((0, length), np.uint16)

    return run
