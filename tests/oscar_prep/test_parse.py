"""Lines → documents: what is one, what is none, and that neighbours have no say in it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_prep.parse import parse
from oscar_prep.read import Block, LongLine

GOOD = b'{"content":"good"}'
LINES: dict[str, tuple[bytes, bool]] = {
    "half an object": (b'{"content":"x', False),
    "a byte order mark": (b'\xef\xbb\xbf{"content":"x"}', False),
    "NaN as content": (b'{"content":NaN}', False),
    "two objects": (b'{"content":"x"}{"content":"y"}', False),
    "null": (b"null", False),
    "an array": (b"[]", False),
    "a number as content": (b'{"content": 5}', False),
    "null as content": (b'{"content": null}', False),
    "no content": (b"{}", False),
    "nested brackets": (b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b',"content":"x"}', True),
    "unclosed brackets": (b'{"x":' + b"[" * 200_000 + b"}", False),
    "duplicate keys": (b'{"content":"x","content":"y"}', False),
    "a lone surrogate": (b'{"content":"\\ud800"}', False),
    "a surrogate pair": (b'{"content":"\\ud83d\\ude00"}', True),
    "invalid UTF-8": (b'{"content":"\xff"}', False),
    "invalid UTF-8 in the URL": (b'{"content":"x","warc_headers":{"warc-target-uri":"\xff"}}', False),
    "an escaped NUL": (b'{"content":"a\\u0000b"}', True),
    "a line separator": ('{"content":"a\u2028b"}'.encode(), True),
    "a carriage return at the end": (b'{"content":"x"}\r', True),
    "white space around": (b' \t{"content":"x"} ', True),
    "a string as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":"5"}}', False),
    "NaN as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":NaN}}', True),
    "an integer as harmful_pp": (b'{"content":"x","metadata":{"harmful_pp":5}}', True),
    "text as warnings": (b'{"content":"x","metadata":{"quality_warnings":"tiny"}}', False),
    "null as metadata": (b'{"content":"x","metadata":null,"warc_headers":null}', True),
    "text as metadata": (b'{"content":"x","metadata":"y"}', False),
    "a comment": (b'{"content":"x"} // {}', False),
    "empty content": (b'{"content":""}', True),
}


def outcome(data: bytes, first_line: int = 1) -> tuple[list[int], list[int], list[int]]:
    parsed = parse(Block(data, first_line))
    parsed.documents.validate(full=True)
    return parsed.documents.column("line").to_pylist(), [bad.line for bad in parsed.bad], parsed.blank


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_judged_alike_alone_and_among_others(name: str) -> None:
    line, good = LINES[name]
    assert outcome(line) == (([1], [], []) if good else ([], [1], []))
    among = b"\n".join([GOOD, line, GOOD, b"", GOOD]) + b"\n"
    assert outcome(among, 11) == (([11, 12, 13, 15], [], [14]) if good else ([11, 13, 15], [12], [14]))


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
    alone = [outcome(line, number) if line else ([], [], [number]) for number, line in enumerate(mutated, start=1)]
    together = outcome(b"\n".join(mutated) + b"\n")
    assert together == tuple([number for one in alone for number in one[kind]] for kind in range(3))


def test_every_bad_line_has_a_reason_its_size_and_its_start() -> None:
    parsed = parse(Block(b'{"content": 5}\n{"content":"\xff"}\nnull\n{}\n', 5))
    assert [(bad.line, bad.size, bad.reason) for bad in parsed.bad] == [
        (5, 14, "Column(/content) changed from string to number"),
        (6, 15, "Column 0: In chunk 0: Invalid: Invalid UTF8 sequence at string index 0"),
        (7, 4, "not a JSON object"),
        (8, 2, "no `content`"),
    ]
    assert parsed.bad[1].start == '{"content":"�"}'


def test_a_line_beyond_the_bound_is_bad() -> None:
    parsed = parse(LongLine(3, 400_000_000, b'{"content":"xx'))
    assert parsed.documents.num_rows == 0
    assert [(bad.line, bad.size) for bad in parsed.bad] == [(3, 400_000_000)]


@pytest.mark.parametrize("key", ["quality_warnings", "annotation"])
def test_both_releases_of_oscar_are_read(key: str) -> None:
    record: dict[str, Any] = {
        "content": "text",
        "warc_headers": {"warc-record-id": "<urn:uuid:1>", "warc-target-uri": "https://example.org/", "x": 1},
        "metadata": {"identification": {"label": "en", "prob": 0.9}, key: ["tiny"], "categories": ["adult"]},
    }
    documents = parse(Block(json.dumps(record).encode(), 1)).documents
    assert documents.to_pylist() == [
        {
            "line": 1, "record_id": "<urn:uuid:1>", "url": "https://example.org/", "content": "text",
            "harmful_pp": None, "quality_warnings": ["tiny"], "categories": ["adult"],
            "language": None, "language_probability": None,
        }
    ]  # fmt: skip
