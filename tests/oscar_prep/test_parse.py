"""Lines → documents: what is one, what is none, and that neighbours have no say in it."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_prep.parquet import Rows
from oscar_prep.parse import parse
from oscar_prep.read import Block, LongLine

GOOD = b'{"content":"good"}'
DEEP = b"[" * 200_000
# Each with the beginning of the reason why it is no document; None where it is one.
LINES: dict[str, tuple[bytes, str | None]] = {
    "half an object": (b'{"content":"x', "Input data was truncated"),
    "a byte order mark": (b'\xef\xbb\xbf{"content":"x"}', "JSON is malformed: invalid character (byte 0)"),
    "NaN as content": (b'{"content":NaN}', "JSON is malformed"),
    "two objects": (b'{"content":"x"}{"content":"y"}', "JSON is malformed: trailing characters (byte 16)"),
    "a trailing comma": (b'{"content":"x",}', "JSON is malformed: trailing comma"),
    "null": (b"null", "Expected `object`, got `null`"),
    "an array": (b"[]", "Expected `object`, got `array`"),
    "a number as content": (b'{"content": 5}', "Expected `str`, got `int` - at `$.content`"),
    "null as content": (b'{"content": null}', "Expected `str`, got `null` - at `$.content`"),
    "no content": (b"{}", "Object missing required field `content`"),
    "nested brackets": (b'{"x":' + DEEP + b"]" * 200_000 + b',"content":"x"}', "nested too deeply"),
    "unclosed brackets": (b'{"x":' + DEEP + b"}", "nested too deeply"),
    "a hundred brackets": (b'{"x":' + b"[" * 100 + b"]" * 100 + b',"content":"x"}', None),
    "equal keys": (b'{"content":5,"content":"y"}', "Expected `str`, got `int` - at `$.content`"),
    "a lone surrogate": (b'{"content":"\\ud800"}', "Input data was truncated"),
    "a lone surrogate before text": (b'{"content":"\\ud800 text to follow"}', "JSON is malformed"),
    "a surrogate pair": (b'{"content":"\\ud83d\\ude00"}', None),
    "invalid UTF-8": (b'{"content":"\xff"}', "invalid UTF-8"),
    "overlong UTF-8": (b'{"content":"\xc0\xaf"}', "invalid UTF-8"),
    "a surrogate as UTF-8": (b'{"content":"\xed\xa0\x80"}', "invalid UTF-8"),
    "invalid UTF-8 in the URL": (b'{"content":"x","warc_headers":{"warc-target-uri":"\xff"}}', "invalid UTF-8"),
    "invalid UTF-8 where nothing is read": (b'{"content":"x","y":"\xff"}', None),
    "an escaped NUL": (b'{"content":"a\\u0000b"}', None),
    "a control character": (b'{"content":"a\x01b"}', "JSON is malformed"),
    "a line separator": ('{"content":"a\u2028b"}'.encode(), None),
    "a carriage return at the end": (b'{"content":"x"}\r', None),
    "white space around": (b' \t{"content":"x"} ', None),
    "a no-break space before": (b'\xc2\xa0{"content":"x"}', "JSON is malformed"),
    "a string as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":"5"}}', "Expected `float | null`, got `str`"),
    "true as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":true}}', "Expected `float | null`, got `bool`"),
    "NaN as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":NaN}}', "JSON is malformed"),
    "a number beyond all": (b'{"content":"x","metadata":{"harmful_pp":1e400}}', "Number out of range"),
    "an integer as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":5}}', None),
    "text as warnings": (b'{"content":"x","metadata":{"quality_warnings":"tiny"}}', "Expected `array | null`"),
    "null among warnings": (b'{"content":"x","metadata":{"quality_warnings":[null,"tiny"]}}', None),
    "null as metadata": (b'{"content":"x","metadata":null,"warc_headers":null}', None),
    "text as metadata": (b'{"content":"x","metadata":"y"}', "Expected `object | null`, got `str` - at `$.metadata`"),
    "a comment": (b'{"content":"x"} // {}', "JSON is malformed: trailing characters"),
    "empty content": (b'{"content":""}', None),
}


def outcome(lines: list[bytes], first_line: int = 2) -> tuple[list[int], list[int], list[int]]:
    parsed = parse(Block(lines, first_line))
    parsed.documents.metadata.validate(full=True)
    assert len(parsed.documents) == parsed.documents.metadata.num_rows
    return parsed.documents.metadata.column("line").to_pylist(), [bad.line for bad in parsed.bad], parsed.blank


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_judged_alike_alone_and_among_others(name: str) -> None:
    line, reason = LINES[name]
    assert outcome([line]) == (([2], [], []) if reason is None else ([], [2], []))
    among = [GOOD, line, GOOD, b"", GOOD]
    assert outcome(among, 11) == (([11, 12, 13, 15], [], [14]) if reason is None else ([11, 13, 15], [12], [14]))
    for bad in parse(Block([line], 2)).bad:
        assert bad.reason.startswith(str(reason))
        assert (bad.size, bad.start) == (len(line), line[:200].decode(errors="replace"))


@settings(max_examples=200)
@given(st.data())
def test_no_lines_fate_depends_on_its_neighbours(data: st.DataObject) -> None:
    lines = [line for line, _ in LINES.values() if len(line) < 1000] + [GOOD, b"", b"  "]
    drawn = data.draw(st.lists(st.sampled_from(lines), min_size=1, max_size=12))
    mutated = []
    for line in drawn:
        position = data.draw(st.integers(0, len(line)))
        inserted = data.draw(st.sampled_from([b"", b"{", b"}", b'"', b"\\", b",", b"\r", b"\xff", b"null", b":"]))
        mutated.append(line[:position] + inserted + line[position:])
    alone = [outcome([line], number) for number, line in enumerate(mutated, start=2)]
    assert outcome(mutated) == tuple([number for one in alone for number in one[kind]] for kind in range(3))


def test_how_deep_a_line_may_be_nested_depends_on_no_caller() -> None:
    lines = [b'{"content":"x","y":' + b"[" * depth + b"]" * depth + b"}" for depth in range(800, 1100)]

    def called(depth: int) -> list[int]:
        return called(depth - 1) if depth else outcome(lines)[1]

    bad = called(0)
    assert called(1) == called(200) == called(500) == bad
    assert 0 < len(bad) < len(lines)


def test_of_equal_keys_the_last_counts() -> None:
    assert parse(Block([b'{"content":"x","content":"y"}'], 1)).documents.texts == ["y"]


def test_a_byte_order_mark_at_the_start_of_a_file_is_no_fault_of_the_first_document() -> None:
    marked = b"\xef\xbb\xbf"
    assert parse(Block([marked + GOOD, GOOD], 1)).documents.texts == ["good", "good"]
    assert parse(Block([marked], 1)).blank == [1]
    assert len(parse(Block([marked + marked + GOOD], 1)).bad) == 1


def test_a_line_beyond_the_bound_is_bad() -> None:
    parsed = parse(LongLine(3, 400_000_000, b'{"content":"xx'))
    assert len(parsed.documents) == 0
    assert [(bad.line, bad.size) for bad in parsed.bad] == [(3, 400_000_000)]


def test_a_value_of_parquet_beyond_the_bound_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oscar_prep.parse.LONGEST_LINE", 10)
    texts = ["a" * 10, "a" * 11, "é" * 6, "ok", None]
    parsed = parse(Rows(pa.table({"content": texts}), 7))
    assert parsed.documents.texts == ["a" * 10, "ok"]
    assert parsed.documents.metadata.column("line").to_pylist() == [7, 10]
    assert [(bad.line, bad.size, bad.start) for bad in parsed.bad] == [(8, 11, "a" * 11), (9, 12, "é" * 6), (11, 0, "")]


@pytest.mark.parametrize("key", ["quality_warnings", "annotation"])
def test_both_releases_of_oscar_are_read(key: str) -> None:
    record: dict[str, Any] = {
        "content": "text",
        "warc_headers": {"warc-record-id": "<urn:uuid:1>", "warc-target-uri": "https://example.org/", "x": 1},
        "metadata": {"identification": {"label": "en", "prob": 0.9}, key: ["tiny"], "categories": ["adult"]},
    }
    documents = parse(Block([json.dumps(record).encode()], 1)).documents
    assert documents.texts == ["text"]
    assert documents.metadata.to_pylist() == [
        {
            "line": 1, "record_id": "<urn:uuid:1>", "url": "https://example.org/",
            "harmful_pp": None, "quality_warnings": ["tiny"], "categories": ["adult"],
            "language": None, "language_probability": None,
        }
    ]  # fmt: skip
