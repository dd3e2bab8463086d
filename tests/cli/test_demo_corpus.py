import base64
import hashlib
import io
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocklists.lists import Blocklists
from cli.demo_corpus import BLOCKED_PAGE, CATEGORY, write_blocklists, write_corpus
from cli.demo_documentation import PAGES, Text
from oscar_prep.inputs import discover

LONG = "A paragraph of running text that is long enough for OSCAR, since it has more than a hundred characters in it."
TEXTS = [
    Text("alpha", f"{PAGES}/alpha.html", (LONG, "Ça va?") + (LONG,) * 8),
    Text("beta", f"{PAGES}/beta.html", (LONG,)),
    Text("gamma.delta", "https://github.com/python/cpython/blob/3.11/Lib/gamma/delta.py", (LONG,) * 6),
    Text("epsilon", BLOCKED_PAGE, (LONG,) * 5),
    Text("zeta", f"{PAGES}/zeta.html", ("Short.",) * 10),
]


def records_of(folder: Path) -> list[dict[str, Any]]:
    lines = []
    for path in sorted(folder.glob("en_meta_part_*.jsonl.zst")):
        lines += io.TextIOWrapper(
            io.BytesIO(pa.input_stream(str(path), compression="zstd").read()), "utf-8", newline="\n"
        ).readlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def records(tmp_path: Path) -> dict[str, dict[str, Any]]:
    write_corpus(TEXTS, tmp_path / "en_meta")
    by_url = {record["warc_headers"]["warc-target-uri"]: record for record in records_of(tmp_path / "en_meta")}
    return {text.module: by_url[text.url] for text in TEXTS}


def test_every_text_becomes_one_record_with_a_line_for_each_paragraph(records: dict[str, dict[str, Any]]) -> None:
    assert [record["content"].split("\n") for record in records.values()] == [list(text.paragraphs) for text in TEXTS]
    for record in records.values():
        assert len(record["metadata"]["sentence_identifications"]) == len(record["content"].split("\n"))


def test_what_the_headers_say_of_the_content_is_true(records: dict[str, dict[str, Any]]) -> None:
    for record in records.values():
        content, headers = record["content"].encode(), record["warc_headers"]
        assert headers["content-length"] == str(len(content))
        digest = base64.b32decode(headers["warc-block-digest"].removeprefix("sha1:"))
        assert digest == hashlib.sha1(content).digest()
    ids = [record["warc_headers"]["warc-record-id"] for record in records.values()]
    assert len({uuid.UUID(name.removeprefix("<urn:uuid:").removesuffix(">")) for name in ids}) == len(TEXTS)


def test_quality_warnings_are_computed_and_nothing_else_is_claimed(records: dict[str, dict[str, Any]]) -> None:
    assert {name: record["metadata"]["quality_warnings"] for name, record in records.items()} == {
        "alpha": None,
        "beta": ["tiny"],
        "gamma.delta": None,
        "epsilon": None,
        "zeta": ["short_sentences", "header", "footer"],
    }
    for record in records.values():
        metadata = record["metadata"]
        assert (metadata["harmful_pp"], metadata["tlsh"], metadata["categories"]) == (None, None, None)


def test_the_same_texts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_corpus(TEXTS, tmp_path / name)
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert len(first) == 5


def test_the_shards_are_found_with_their_checksums(tmp_path: Path) -> None:
    write_corpus(TEXTS, tmp_path / "en_meta")
    found = discover([tmp_path / "en_meta"])
    assert [file.name for file in found.files] == [f"en_meta_part_{number}.jsonl.zst" for number in range(1, 5)]
    assert [file.checksum for file in found.files] == [
        ("sha256", hashlib.sha256(file.path.read_bytes()).hexdigest()) for file in found.files
    ]
    assert found.ignored == []


def test_the_blocklists_name_one_host_and_one_page(tmp_path: Path) -> None:
    write_blocklists(tmp_path / "blocklists")
    lists = Blocklists.load(tmp_path / "blocklists", [CATEGORY])
    assert lists.blocked(pa.array([text.url for text in TEXTS])).tolist() == [False, False, True, True, False]


@pytest.mark.shared
def test_a_record_has_the_fields_of_the_annotated_shards_in_their_order(
    records: dict[str, dict[str, Any]], shared: Path
) -> None:
    path = shared / "oscar2301" / "en_meta" / "en_meta_part_6.jsonl.zst"
    theirs = json.loads(
        io.TextIOWrapper(
            io.BytesIO(pa.input_stream(str(path), compression="zstd").read()), "utf-8", newline="\n"
        ).readline()
    )
    ours = records["alpha"]
    assert [*ours] == [*theirs]
    assert [*ours["metadata"]] == [*theirs["metadata"]]
    assert [*ours["warc_headers"]] == [*theirs["warc_headers"]]
    assert ours["metadata"]["identification"].keys() == theirs["metadata"]["identification"].keys()
