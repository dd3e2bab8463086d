"""The plain way to do what `symbert prepare` does: json.loads, three conditions, encode_batch_fast, rows of 512.

python benchmarks/prepare_loop.py TOKENIZER_FOLDER OUT FILE...
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

DROPPED = {
    "agressif", "adult", "cryptojacking", "dangerous_material", "phishing", "warez", "ddos", "hacking", "malware",
    "mixed_adult", "sect",
}  # fmt: skip


def keep(metadata: dict) -> bool:
    if DROPPED & set(metadata["categories"] or []):
        return False
    return 5.0 < (metadata["harmful_pp"] or 0.0) < 100_000.0 and not metadata["quality_warnings"]


def main(tokenizer_folder: str, out: str, *files: str) -> None:
    tokenizer = Tokenizer.from_file(f"{tokenizer_folder}/tokenizer.json")
    tokenizer.encode_special_tokens = True
    for file in files:
        ids: list[int] = []
        batch: list[str] = []
        with pa.input_stream(file, compression="zstd") as stream:
            for line in [*stream.read().splitlines(), b""]:
                if line:
                    record = json.loads(line)
                    if keep(record["metadata"]):
                        batch.append(record["content"])
                if len(batch) == 1000 or not line:
                    for encoding in tokenizer.encode_batch_fast(batch):
                        ids += encoding.ids
                    batch = []
        rows = np.array(ids, np.uint16)
        np.save(Path(out) / f"{Path(file).name}.npy", rows[: len(rows) // 512 * 512].reshape(-1, 512))


if __name__ == "__main__":
    main(*sys.argv[1:])
