"""The floor under `symbert prepare`: its inner part alone, by the same libraries; no ledger, no hashes, no faults.

python benchmarks/prepare_msgspec.py TOKENIZER_FOLDER OUT FILE...
"""

import json
import sys
from pathlib import Path

import msgspec
import nanotoken
import numpy as np
import pyarrow as pa

DROPPED = {
    "agressif", "adult", "cryptojacking", "dangerous_material", "phishing", "warez", "ddos", "hacking", "malware",
    "mixed_adult", "sect",
}  # fmt: skip


class Metadata(msgspec.Struct):
    harmful_pp: float | None
    quality_warnings: list[str] | None
    categories: list[str] | None

    def is_kept(self) -> bool:
        return (
            DROPPED.isdisjoint(self.categories or ())
            and 5.0 < (self.harmful_pp or 0.0) < 100_000.0
            and not self.quality_warnings
        )


class Document(msgspec.Struct):
    content: str
    metadata: Metadata


def main(tokenizer_folder: str, out: str, *names: str) -> None:
    settings = json.loads(Path(tokenizer_folder, "tokenizer.json").read_text("utf-8"))
    frame = {"type": "BertProcessing", "cls": ["[CLS]", 101], "sep": ["[SEP]", 102]}
    settings |= {"added_tokens": [], "post_processor": frame, "truncation": None, "padding": None}
    tokenizer = nanotoken.WordPieceTokenizer.from_json(json.dumps(settings))
    decode = msgspec.json.Decoder(Document).decode
    for name in names:
        parts, rest = [], b""
        with pa.CompressedInputStream(pa.OSFile(name), "zstd") as stream:
            while chunk := stream.read(4 << 20):
                *lines, rest = (rest + chunk).split(b"\n")
                documents = map(decode, lines)
                texts = [document.content for document in documents if document.metadata.is_kept()]
                parts.append(tokenizer.encode_batch(texts, parallel=False)[0].astype(np.uint16))
        ids = np.concatenate(parts)
        np.save(Path(out, Path(name).stem), ids[: len(ids) // 512 * 512].reshape(-1, 512))


if __name__ == "__main__":
    main(*sys.argv[1:])
