"""Corpora of other layouts than OSCAR's, and Parquet."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.layout import Layout
from oscar_prep.parquet import ParquetReader
from oscar_prep.parse import parse
from oscar_prep.read import Block

Process = Callable[..., tuple[Any, np.ndarray]]
FOREIGN = {"content_field": "text", "url_field": "url", "missing_harmful_pp": "keep"}


def block(*records: dict[str, Any]) -> Block:
    return Block([json.dumps(record).encode() for record in records], 1)


def test_another_corpus_gives_content_and_url_by_its_own_names() -> None:
    records = (
        {"text": "one", "url": "https://a.example/", "content": 5, "metadata": "a string", "id": 7},
        {"text": "two"},
    )
    parsed = parse(block(*records), Layout("text", "url"))
    assert parsed.bad == []
    assert parsed.documents.texts == ["one", "two"]
    assert parsed.documents.metadata.column("url").to_pylist() == ["https://a.example/", None]
    assert parsed.documents.metadata.column("harmful_pp").null_count == 2


def test_dots_lead_into_objects() -> None:
    parsed = parse(block({"page": {"body": {"text": "one"}, "url": "u"}}), Layout("page.body.text", "page.url"))
    assert parsed.documents.texts == ["one"]
    assert parsed.documents.metadata.column("url").to_pylist() == ["u"]


@pytest.mark.parametrize("record", [{}, {"page": None}, {"page": {"body": {"text": None}}}, {"page": {"body": 5}}])
def test_what_leads_to_the_content_must_be_there(record: dict[str, Any]) -> None:
    (bad,) = parse(block(record), Layout("page.body.text", "page.url")).bad
    assert "`page`" in bad.reason or "$.page" in bad.reason


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\udcff"])
def test_a_name_that_no_field_can_have_is_refused(name: str) -> None:
    with pytest.raises(PrepareError, match="the name of a field may hold no quotation mark"):
        _ = Layout(name, "url").decode


def test_a_record_without_the_content_field_is_bad_and_the_field_is_named() -> None:
    (bad,) = parse(block({"content": "one"}), Layout("text", "url")).bad
    assert bad.reason == "Object missing required field `text`"


@pytest.mark.parametrize("fields", [("text", "text"), ("page", "page.url"), ("page.text", "page")])
def test_a_field_inside_another_is_refused(fields: tuple[str, str]) -> None:
    with pytest.raises(PrepareError, match="two purposes"):
        _ = Layout(*fields).decode


def test_the_records_own_language_is_read_where_it_is_wanted() -> None:
    record = {"content": "one", "metadata": {"identification": {"label": "en", "prob": 0.75}}}
    columns = ["language", "language_probability"]
    assert parse(block(record), Layout(language=True)).documents.metadata.select(columns).to_pylist() == [
        {"language": "en", "language_probability": 0.75}
    ]
    assert parse(block(record), Layout()).documents.metadata.column("language").null_count == 1


def test_parquet_makes_the_samples_that_json_lines_make(
    process: Process, oscar: Callable[..., dict[str, Any]], write_shard: Callable[..., Path], tmp_path: Path
) -> None:
    records = [oscar(f"the quick brown fox {n}", n, categories=["adult"] if n % 5 == 0 else None) for n in range(50)]
    lines = process(write_shard(tmp_path / "a.jsonl", records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=7)
    rows = process(tmp_path / "a.parquet")
    assert (rows[1] == lines[1]).all()
    assert rows[0].ledger == lines[0].ledger
    assert rows[0].train.sha256 == lines[0].train.sha256


@pytest.mark.parametrize(
    "text_type", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_any_arrow_type_of_text_is_read_from_parquet(process: Process, tmp_path: Path, text_type: pa.DataType) -> None:
    texts = pa.array(["the quick brown fox jumps"] * 9)
    table = pa.table({"text": texts.cast(text_type), "url": texts.cast(text_type), "metadata": texts})
    pq.write_table(table, tmp_path / "a.parquet")
    record, rows = process(tmp_path / "a.parquet", **FOREIGN)
    assert record.ledger.kept == 9
    assert len(rows)


def test_parquet_rows_without_text_or_with_bad_text_are_put_aside_with_their_number(
    process: Process, tmp_path: Path
) -> None:
    texts = [b"the quick brown fox", b"\xff\xfe", None, b"the lazy dog", b"\xe9t\xe9"] + [b"over the dog"] * 20
    raw = pa.array(texts, pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    record, _ = process(tmp_path / "a.parquet", **FOREIGN)
    assert (record.ledger.kept, record.ledger.invalid) == (22, 3)
    quarantined = [json.loads(line) for line in (tmp_path / "unit" / record.quarantine.file).read_text().splitlines()]
    assert [bad["line"] for bad in quarantined] == [2, 3, 5]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"body": ["x"]}), "no column `text`"),
        (pa.table({"text": [["a", "list"]]}), "the column `text` holds list<.*>, expected string"),
        (pa.table({"text": [1, 2]}), "the column `text` holds int64, expected string"),
        (pa.table({"text": ["x"], "url": [5.0]}), "the column `url` holds double, expected string"),
        (pa.table([["x"], ["y"]], names=["text", "text"]), "2 columns are called `text`, expected one"),
    ],
)
def test_a_parquet_file_of_another_schema_is_refused(
    process: Process, tmp_path: Path, table: pa.Table, message: str
) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(PrepareError, match=message):
        process(tmp_path / "a.parquet", **FOREIGN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the column `warc_headers` holds string, expected a struct with `warc-target-uri`"),
        ({"content_field": "content.text"}, "the column `content` holds string, expected a struct with `text`"),
    ],
)
def test_a_column_that_leads_nowhere_is_refused(
    process: Process, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table({"content": ["x"], "warc_headers": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(PrepareError, match=message) as error:
        process(tmp_path / "a.parquet", **settings)
    assert "its columns are content, warc_headers" in error.value.__notes__[0]


def test_large_rows_come_one_by_one_and_small_ones_in_blocks(tmp_path: Path) -> None:
    sizes = [10] * 40 + [5_000] * 3 + [10] * 40
    pq.write_table(pa.table({"content": ["x" * size for size in sizes]}), tmp_path / "a.parquet")
    with ParquetReader(InputFile(tmp_path / "a.parquet", "a"), Layout(), block_bytes=4_000) as reader:
        blocks = list(reader.blocks())
    assert [block.first_line for block in blocks] == [
        1 + sum(before.records.num_rows for before in blocks[:index]) for index in range(len(blocks))
    ]
    found = [[len(text) for text in block.records["content"].to_pylist()] for block in blocks]
    assert [size for block in found for size in block] == sizes
    assert all(sum(block[:-1]) < 4_000 for block in found)
    assert len(blocks) == 4


def test_the_dictionary_of_a_column_of_text_is_read_a_few_times_however_many_rows_there_are(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(3_000)]
    column = pa.array(texts).dictionary_encode()
    pq.write_table(pa.table({"content": column}), tmp_path / "a.parquet")
    with ParquetReader(InputFile(tmp_path / "a.parquet", "a"), Layout(), block_bytes=20_000) as reader:
        blocks = list(reader.blocks())
    assert [text for block in blocks for text in block.records["content"].to_pylist()] == texts
    assert len(blocks) < 10
    assert all(block.records["content"].type == pa.string() for block in blocks)


def test_a_parquet_file_whose_bytes_have_changed_is_damaged_or_gives_all_its_rows(
    process: Process, tmp_path: Path
) -> None:
    columns = {"text": [f"the fox {number}" for number in range(50)], "url": [f"u{number}" for number in range(50)]}
    pq.write_table(pa.table(columns), tmp_path / "whole.parquet", row_group_size=20)
    whole = (tmp_path / "whole.parquet").read_bytes()
    for position in range(0, len(whole), 11):
        changed = whole[:position] + bytes([whole[position] ^ 0x84]) + whole[position + 1 :]
        (tmp_path / "a.parquet").write_bytes(changed)
        with contextlib.suppress(PrepareError):
            record, _ = process(tmp_path / "a.parquet", **FOREIGN)
            assert record.ledger.documents == 50


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_parquet_file_cut_short_is_an_error_that_names_it(process: Process, tmp_path: Path, share: float) -> None:
    pq.write_table(pa.table({"text": [f"the fox {n}" for n in range(1000)]}), tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PrepareError, match=r"cut\.parquet is damaged"):
        process(tmp_path / "cut.parquet", **FOREIGN)
