import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_prep.quality_warnings import quality_warnings

LONG = "x" * 101
FIVE_LONG = "\n".join([LONG] * 5)


def warnings_of(*documents: str | None) -> pa.ListArray:
    return quality_warnings(pa.array(documents, pa.large_string()))


def by_the_words_of_the_rules(document: str) -> list[str] | None:
    lines = [line.removesuffix("\r") for line in document.split("\n")]
    lines[-1] = document.split("\n")[-1]  # only a carriage return before a newline belongs to the line's end
    if lines[-1] == "":
        lines.pop()
    edge = int(len(lines) * 0.2)
    short = [len(line.encode()) < 100 for line in lines]
    others = sum(unicodedata.category(character)[0] not in "LM" for character in document)
    found = {
        "tiny": len(lines) < 5,
        "short_sentences": sum(len(line) <= 100 for line in lines) > len(lines) // 2,
        "header": sum(short[:edge]) > edge // 2,
        "footer": sum(short[len(lines) - edge :]) > edge // 2,
        "noisy": others > len(document) // 2,
    }
    return [name for name, flag in found.items() if flag] or None


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (FIVE_LONG, None),
        (FIVE_LONG + "\n", None),
        ("\n".join([LONG] * 4), ["tiny"]),
        ("\n".join([LONG] * 4) + "\n\n", ["footer"]),
        ("", ["tiny"]),
        (None, None),
        ("\n".join([LONG, "é" * 101, "é" * 100, "a" * 100, LONG]), None),
        ("\n".join([LONG, "é" * 100, "é" * 100, "a" * 100, LONG]), ["short_sentences"]),
        ("\n".join(["é" * 50, LONG, LONG, LONG, LONG]), None),
        ("\n".join(["é" * 49, LONG, LONG, LONG, LONG]), ["header"]),
        ("\n".join([LONG, LONG, LONG, LONG, "a" * 99 + "\r"]) + "\n", ["footer"]),
        ("\n".join([LONG, LONG, LONG, LONG, "a" * 99 + "\r"]), None),
        ("\n".join(["word"] * 5), ["short_sentences", "header", "footer"]),
        ("ab12", ["tiny", "short_sentences"]),
        ("ab123", ["tiny", "short_sentences", "noisy"]),
        ("क्षि", ["tiny", "short_sentences"]),  # two letters and two marks
        ("東京…!", ["tiny", "short_sentences"]),
        ("東京…!?", ["tiny", "short_sentences", "noisy"]),
    ],
)
def test_each_rule_holds_at_its_border(document: str | None, expected: list[str] | None) -> None:
    assert warnings_of(document).to_pylist() == [expected]


@given(st.lists(st.text(st.sampled_from("aé東\u0903😀 1.\r\n")) | st.just(LONG + "\n") | st.just("é" * 50 + "\n")))
def test_a_batch_is_judged_as_its_documents_are_one_by_one(documents: list[str]) -> None:
    joined = ["".join(documents[i:]) for i in range(len(documents))]
    expected = [by_the_words_of_the_rules(document) for document in documents + joined]
    assert warnings_of(*documents, *joined).to_pylist() == expected


def test_a_slice_of_a_batch_is_judged_like_the_batch() -> None:
    batch = pa.array(["ab123", FIVE_LONG, None, "\nword"], pa.string())
    assert quality_warnings(batch.slice(1)).to_pylist() == quality_warnings(batch).to_pylist()[1:]
    assert quality_warnings(batch.slice(4)).to_pylist() == []


def test_the_result_has_the_type_of_oscars_own_field() -> None:
    assert quality_warnings(pa.array(["", FIVE_LONG])).type == pa.list_(pa.string())


@pytest.mark.shared
def test_real_records_of_oscar_2201_get_the_annotations_they_carry(shared: Path) -> None:
    with (shared / "oscar2201" / "data.jsonl").open(encoding="utf-8", newline="\n") as lines:
        records = [json.loads(line) for line in lines]
    found = warnings_of(*(record["content"] for record in records)).to_pylist()
    assert found == [record["metadata"]["annotation"] for record in records]
    assert len(found) == 63


@pytest.mark.slow
@pytest.mark.shared
def test_tiny_short_sentences_and_noisy_agree_with_every_annotated_document(shared: Path) -> None:
    """Those annotations are not OSCAR's own: they round half of a header up, and count marks as noise."""
    documents = 0
    for shard in sorted((shared / "oscar2301" / "en_meta").glob("*.jsonl.zst")):
        lines = io.TextIOWrapper(
            io.BytesIO(pa.input_stream(str(shard), compression="zstd").read()), "utf-8", newline="\n"
        )
        for record, found in judged(lines):
            compared = (
                {"tiny", "short_sentences"} if has_marks(record["content"]) else {"tiny", "short_sentences", "noisy"}
            )
            assert compared & set(found or ()) == compared & set(record["metadata"]["quality_warnings"] or ())
            documents += 1
    assert documents == 11_059


def judged(lines: Iterable[str]) -> Iterator[tuple[dict[str, Any], list[str] | None]]:
    records = [json.loads(line) for line in lines]
    return zip(records, warnings_of(*(record["content"] for record in records)).to_pylist(), strict=True)


def has_marks(document: str) -> bool:
    return any(unicodedata.category(character)[0] == "M" for character in set(document))
