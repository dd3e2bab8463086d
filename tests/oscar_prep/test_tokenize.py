"""Ids exactly as the tokenizer itself gives them."""

import functools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from oscar_prep.tokenize import Encoder, PlainEncoder, TableEncoder, encoder_of, load_tokenizer
from oscar_prep.tokenizer import CorpusTokenizer

# Where a table of words could go wrong: what the tokenizer deletes, splits at, or joins.
ODDITIES = [
    " ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\0", "\x1b", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f", "\x85", "\xa0",
    "\xad", "\u1680", "\u180e", "\u2000", "\u200b", "\u200d", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
    "\ufeff", "\ufffd", "\u0301", "\u0338", " \u0301", "=\u0338", "≠", "a\u0328\u0301", "İ", "ı", "ß", "K", "Å", "ſ",
    "Σς", "ǅ", "日本", "漢", "\U00020000", "가", "각", "[SEP]", "[MASK]", "##ing", "[UNK]", "don't", "U.S.A.", "e-mail",
    "«", "—", "…", "\u2010", "\u2027", "\u200f", "‘", "word’s", "“q”", "—\u0301", "a\u0301—", "\u2028—",
    "´", "´a", "½", "ﬁ", "𝒳", "😀", "👩‍👩‍👧", "x" * 99, "x" * 100, "x" * 101, "X" * 100 + "\u0301",
    "the", "The", "THE", "fox", "jumps", "café", "cafe\u0301", "naïve", "0x1F", "a_b", "a\\b",
]  # fmt: skip
TEXTS = st.lists(
    st.lists(st.one_of(st.sampled_from(ODDITIES), st.text(max_size=5)), max_size=12).map("".join), max_size=6
)


@pytest.fixture(scope="module")
def variant(
    request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> CorpusTokenizer:
    """The small tokenizer with parts of its normalizer replaced."""
    document = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    document["normalizer"] |= request.param
    folder = tmp_path_factory.mktemp("variant")
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return CorpusTokenizer.find(str(folder))


def expected(tokenizer: CorpusTokenizer, texts: list[str]) -> list[list[int]]:
    plain = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    plain.encode_special_tokens = True
    special = tokenizer.special_tokens
    return [[special["cls_token"].id, *plain.encode(text).ids, special["sep_token"].id] for text in texts]


def encoded(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    ids, lengths = encoder.encode(pa.array(texts, pa.string()))
    assert ids.dtype == encoder.dtype
    assert lengths.sum() == len(ids)
    rows, end = [], 0
    for length in lengths.tolist():
        rows.append(ids[end : end + length].tolist())
        end += length
    return rows


NORMALIZERS = [
    {"lowercase": True},
    {"lowercase": False},
    {"lowercase": True, "strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"lowercase": True, "handle_chinese_chars": False},
]


@pytest.mark.parametrize("variant", NORMALIZERS, ids=str, indirect=True)
@settings(max_examples=100)
@given(texts=TEXTS)
@example(texts=ODDITIES)
@example(texts=["".join(ODDITIES), " ".join(ODDITIES), "a".join(ODDITIES), "\v".join(ODDITIES)])
def test_the_table_gives_the_tokenizers_ids(variant: CorpusTokenizer, texts: list[str]) -> None:
    table = encoder_of(variant)
    assert isinstance(table, TableEncoder)
    assert encoded(table, texts) == expected(variant, texts)
    assert encoded(table, texts[::-1]) == expected(variant, texts)[::-1]


@pytest.mark.parametrize(
    "codes",
    [
        [*range(0x3200), *range(0xFB00, 0xFFFF, 3), *range(0x10000, 0x110000, 997)],
        pytest.param([*range(0xD800), *range(0xE000, 0x110000)], marks=pytest.mark.long),
    ],
    ids=["most", "all"],
)
def test_every_code_point_alone_and_between_letters(tokenizer: CorpusTokenizer, codes: list[int]) -> None:
    points = [chr(code) for code in codes]
    table, plain = TableEncoder(tokenizer), PlainEncoder(tokenizer)
    for texts in (points, [f"a{point}b {point}c d{point}" for point in points]):
        (ids, lengths), (true_ids, true_lengths) = (encoder.encode(pa.array(texts)) for encoder in (table, plain))
        assert (lengths == true_lengths).all()
        assert (ids == true_ids).all()


def test_a_table_that_is_full_begins_anew_and_stays_exact(tokenizer: CorpusTokenizer) -> None:
    table = TableEncoder(tokenizer, table_bytes=5_000)
    for start in range(0, 500, 50):
        texts = [f"word{number} fox" for number in range(start, start + 50)]
        assert encoded(table, texts) == expected(tokenizer, texts)
        assert table.bytes < 5_000 + 60 * 210


def test_a_slice_of_a_column_is_encoded_as_such(tokenizer: CorpusTokenizer) -> None:
    column = pa.array(["the fox", "é\vé", "", "dog", "jumps"])
    for start in range(5):
        for stop in range(start, 6):
            ids, _ = TableEncoder(tokenizer).encode(column[start:stop])
            rows = expected(tokenizer, column[start:stop].to_pylist())
            assert ids.tolist() == [identifier for row in rows for identifier in row]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "its normalizer is NFC, not BertNormalizer"),
        ({"normalizer": {"clean_text": False}}, "its normalizer does not clean text"),
        (
            {"model": {"continuing_subword_prefix": "@"}},
            "its model marks continuations by `@`, with which words begin too",
        ),
        (
            {"model": {"continuing_subword_prefix": "[U"}},
            "its model marks continuations by `[U`, with which words begin too",
        ),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer is Whitespace, not BertPreTokenizer"),
        (
            {"added_tokens": [{"id": 5, "content": "foo", "special": False, "single_word": False, "lstrip": False,
                               "rstrip": False, "normalized": True}]},
            "`foo` was added to it, which may match inside words",
        ),
    ],
)  # fmt: skip
def test_another_kind_of_tokenizer_is_asked_itself_and_the_reason_is_told(
    tokenizer_folder: Path, tmp_path: Path, parts: dict[str, Any], reason: str
) -> None:
    document = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    for name, changes in parts.items():
        if name == "added_tokens":
            document[name] += [{**changes[0], "id": len(document["model"]["vocab"])}]
        else:
            document[name] = {**document[name], **changes} if "type" not in changes else changes
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = CorpusTokenizer.find(str(tmp_path))
    assert tokenizer.why_no_table == reason
    encoder = encoder_of(tokenizer)
    assert isinstance(encoder, PlainEncoder)
    texts = ["the quick foo", "xfoox\vjumps @ the", ""]
    assert encoded(encoder, texts) == expected(tokenizer, texts)


def test_truncation_and_padding_in_the_file_are_set_aside(tokenizer_folder: Path, tmp_path: Path) -> None:
    limited = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    limited.enable_truncation(4)
    limited.enable_padding(length=10)
    limited.save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(tmp_path / "tokenizer.json").encode("the fox jumps over the dog").ids) == 7
    (row,) = encoded(encoder_of(CorpusTokenizer.find(str(tmp_path))), ["the fox jumps over the dog"])
    assert len(row) == 9


@pytest.mark.shared
@settings(max_examples=60)
@given(texts=TEXTS)
def test_berts_own_vocabulary_gives_the_same_ids(shared: Path, texts: list[str]) -> None:
    table, plain = berts_encoders(shared / "bert-base-uncased")
    assert encoded(table, texts) == encoded(plain, texts)


@functools.cache
def berts_encoders(folder: Path) -> tuple[TableEncoder, PlainEncoder]:
    tokenizer = CorpusTokenizer.find(str(folder))
    return TableEncoder(tokenizer), PlainEncoder(tokenizer)


@pytest.mark.shared
def test_ids_are_those_of_transformers_tokenizer(shared: Path) -> None:
    from transformers import AutoTokenizer

    folder = shared / "bert-base-uncased"
    texts = ["Royal Mail workers have voted 3:1", "naïve café 日本\u2028x", "", "don't [SEP] [MASK] ##ing"]
    theirs = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)(texts)["input_ids"]
    assert encoded(encoder_of(CorpusTokenizer.find(str(folder))), texts) == theirs
