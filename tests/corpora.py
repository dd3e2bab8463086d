"""Small packed corpora in the format of `symbert prepare`, without needing it: real tokenizer files, real shards."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))


def write_corpus(
    folder: Path,
    *,
    train: int = 96,
    validation: int = 16,
    length: int = 32,
    vocabulary: int = 101,
    shards: int = 3,
    batch_rows: int = 7,
    seed: int = 0,
) -> Path:
    """A corpus whose rows climb by one from token to token, most of them from a low start."""
    random = np.random.default_rng(seed)
    splits = {}
    for name, count in (("train", train), ("validation", validation)):
        if name == "validation" and not count:
            continue
        rows = _rows(random, count, length, vocabulary)
        parts = np.array_split(rows, shards)
        entries = [_write_shard(folder, name, number, shards, part, batch_rows) for number, part in enumerate(parts)]
        splits[name] = {"rows": count, "dtype": "uint16", "shards": entries}
    _write_tokenizer(folder / "tokenizer", vocabulary)
    joined = "".join(entry["sha256"] for split in splits.values() for entry in split["shards"])
    manifest = {
        "format": "symbert corpus",
        "format_version": 1,
        "corpus_hash": hashlib.sha256(joined.encode()).hexdigest(),
        "sequence_length": length,
        "configuration": {"sequence_length": length},
        "tokenizer": {
            "name": "tiny",
            "sha256": hashlib.sha256((folder / "tokenizer" / "tokenizer.json").read_bytes()).hexdigest(),
            "vocabulary_size": vocabulary,
            "special_tokens": {
                f"{name.strip('[]').lower()}_token": {"token": name, "id": number}
                for number, name in enumerate(SPECIAL)
            },
        },
        "splits": splits,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def _rows(random: np.random.Generator, count: int, length: int, vocabulary: int) -> np.ndarray:
    words = vocabulary - len(SPECIAL)
    starts = (words * random.random((count, 1)) ** 3).astype(np.int64)
    rows = (starts + np.arange(length)) % words + len(SPECIAL)
    rows[:, 0], rows[:, length // 2], rows[:, -1] = CLS, SEP, UNK
    return rows.astype(np.uint16)


def _write_shard(folder: Path, split: str, number: int, shards: int, rows: np.ndarray, batch_rows: int) -> dict:
    path = folder / split / f"data-{number:05d}-of-{shards:05d}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("input_ids", pa.list_(pa.uint16(), rows.shape[1]))])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(rows), batch_rows):
            part = rows[start : start + batch_rows]
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1])
            writer.write_batch(pa.record_batch([column], schema=schema))
    content = path.read_bytes()
    return {
        "file": f"{split}/{path.name}",
        "rows": len(rows),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    words = {
        word: number for number, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(vocabulary - len(SPECIAL)))])
    }
    BertTokenizer(vocab=words).save_pretrained(folder)
