"""One input file → one unit, in this process."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from oscar_prep.errors import PrepareError
from oscar_prep.record import Budget, UnitRecord
from oscar_prep.tokenizer import CorpusTokenizer

Process = Callable[..., tuple[UnitRecord, np.ndarray]]
Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]


def ids_of(tokenizer: CorpusTokenizer, text: str) -> list[int]:
    """[CLS] text [SEP] by the tokenizer itself."""
    encoder = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    encoder.encode_special_tokens = True
    special = tokenizer.special_tokens
    return [special["cls_token"].id, *encoder.encode(text).ids, special["sep_token"].id]


def test_samples_are_the_stream_of_kept_documents_in_rows(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write, tokenizer: CorpusTokenizer
) -> None:
    texts = ["the quick brown fox", "jumps over [SEP] the lazy dog", "", "café\n日本 naïve", "x" * 200]
    records = [oscar(text, number) for number, text in enumerate(texts)]
    records.insert(2, oscar("dropped", 9, categories=["adult"]))
    record, rows = process(write_shard(tmp_path / "part.jsonl", records))
    stream = [identifier for text in texts for identifier in ids_of(tokenizer, text)]
    assert rows.reshape(-1).tolist() == stream[: rows.size]
    assert record.ledger.tokens == len(stream)
    assert record.ledger.tail == len(stream) % 8
    assert record.ledger.samples["train"] == len(stream) // 8


def test_a_document_goes_to_validation_by_its_record_id_alone(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    records = [oscar("the fox", number) for number in range(400)]
    path = write_shard(tmp_path / "part.jsonl", records)
    process(path, validation_samples=5, validation_share=0.25, salt=7)
    table = pq.read_table(tmp_path / "unit/documents/data-00000-of-00001.parquet").to_pylist()
    for row in table:
        digest = hashlib.blake2b(b"7" + row["record_id"].encode()).digest()[:8]
        held_out = int.from_bytes(digest, "big") / 2**64 < 0.25
        assert row["split"] == ("validation" if held_out else "train")
    assert 60 < sum(row["split"] == "validation" for row in table) < 140


def test_without_a_record_id_the_content_decides(tmp_path: Path, process: Process, write_shard: Write) -> None:
    path = write_shard(tmp_path / "part.jsonl", [{"content": f"fox {number}"} for number in range(50)])
    process(path, validation_samples=5, validation_share=0.5, missing_harmful_pp="keep")
    table = pq.read_table(tmp_path / "unit/documents/data-00000-of-00001.parquet").to_pylist()
    for number, row in enumerate(table):
        content = hashlib.sha256(f"fox {number}".encode()).hexdigest()
        digest = hashlib.blake2b(b"0" + content.encode()).digest()[:8]
        assert row["split"] == ("validation" if int.from_bytes(digest, "big") / 2**64 < 0.5 else "train")


def test_every_document_has_a_row_that_tells_its_fate(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    records = [
        oscar("the quick brown fox", 0),
        oscar("naïve", 1, categories=["adult", "press"], harmful_pp=3.0),
        b"",
        oscar("the lazy dog jumps over the fox", 2),
        b"{broken",
        oscar("the dog", 3, quality_warnings=["tiny"]),
    ]
    record, _ = process(write_shard(tmp_path / "part.jsonl", records))
    rows = pq.read_table(tmp_path / "unit" / record.documents.file).to_pylist()
    columns = ["line", "reason", "failed", "bytes", "characters", "tokens", "split", "first_sample"]
    assert [[row[name] for name in columns] for row in rows] == [
        [1, None, [], 19, 19, 6, "train", 0],
        [2, "blocklist", ["blocklist", "harmful_pp"], 6, 5, None, None, None],
        [4, None, [], 31, 31, 10, "train", 0],
        [6, "quality_warnings", ["quality_warnings"], 7, 7, None, None, None],
    ]
    assert rows[1]["file"] == "part.jsonl"
    assert rows[1]["url"] == "https://example.org/1"
    assert (rows[1]["harmful_pp"], rows[1]["categories"]) == (3.0, ["adult", "press"])
    quarantine = (tmp_path / "unit" / record.quarantine.file).read_text().splitlines() if record.quarantine else []
    assert [json.loads(line) for line in quarantine] == [
        {
            "file": "part.jsonl",
            "line": 5,
            "reason": "JSON is malformed: object keys must be strings (byte 1)",
            "size": 7,
            "start": "{broken",
        }
    ]
    assert (record.ledger.lines, record.ledger.blank, record.ledger.invalid) == (6, 1, 1)


@pytest.mark.parametrize("budget", [Budget(documents=3), Budget(tokens=13), Budget(documents=3, tokens=18)])
def test_a_budget_ends_the_unit_with_the_document_that_reaches_it(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write, budget: Budget
) -> None:
    kept = [oscar("the quick brown fox", number) for number in range(6)]  # 6 tokens each
    records = [
        kept[0],
        oscar("x", 10, categories=["adult"]),
        kept[1],
        b"",
        kept[2],
        b"",
        oscar("x", 11, harmful_pp=1.0),
    ]
    path = write_shard(tmp_path / "part.jsonl", records + kept[3:])
    record, _ = process(path, budget)
    assert (record.ledger.kept, record.ledger.tokens) == (3, 18)
    assert (record.ledger.lines, record.ledger.documents, record.ledger.dropped.total()) == (5, 4, 1)
    assert record.budget == budget
    assert record.input["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_budget_that_is_not_reached_changes_nothing(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    path = write_shard(tmp_path / "part.jsonl", [oscar("the quick brown fox", number) for number in range(6)])
    free, _ = process(path)
    assert process(path, Budget(documents=7, tokens=37))[0] == free


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz"])
def test_damaged_input_leaves_nothing_behind(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write, suffix: str
) -> None:
    path = write_shard(tmp_path / f"part{suffix}", [oscar(f"the fox {number}") for number in range(100)])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(PrepareError, match="part.*is damaged: it is cut short"):
        process(path)
    assert not [file for file in (tmp_path / "unit").rglob("*") if file.is_file()]


def test_a_record_survives_json(tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write) -> None:
    path = write_shard(tmp_path / "part.jsonl", [oscar(), b"{broken", oscar()])
    for budget in (None, Budget(documents=2)):
        record, _ = process(path, budget, validation_samples=1, validation_share=0.5)
        assert UnitRecord.from_json(json.loads(json.dumps(record.as_json()))) == record
