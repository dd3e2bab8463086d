"""Ids exactly as the tokenizer itself gives them."""

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nanotoken
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.record import Budget, Unit
from oscar_prep.tokenize import CHECKED_CHARACTERS, PIECE_CHARACTERS, Encoder, cut, load_fast, load_tokenizer
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.unit import UnitProcessor

ROOT = Path(__file__).parents[2]
# What the tokenizer deletes, splits at, or joins.
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


def changed(folder: Path, out: Path, parts: dict[str, Any]) -> CorpusTokenizer:
    """A tokenizer with parts replaced, or, where they name no type, with settings of parts replaced."""
    document = json.loads((folder / "tokenizer.json").read_text())
    for name, changes in parts.items():
        if name == "added_tokens":
            document[name] += [{**changes, "id": len(document["model"]["vocab"])}]
        else:
            document[name] = changes if "type" in changes else {**document[name], **changes}
    out.mkdir(exist_ok=True)
    (out / "tokenizer.json").write_text(json.dumps(document))
    return CorpusTokenizer.find(str(out))


@pytest.fixture(scope="module")
def variant(
    request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> CorpusTokenizer:
    """The small tokenizer with settings of its parts replaced."""
    return changed(tokenizer_folder, tmp_path_factory.mktemp("variant"), request.param)


@pytest.fixture(scope="module")
def fast(variant: CorpusTokenizer) -> Encoder:
    return Encoder.of(variant)


def expected(tokenizer: CorpusTokenizer, texts: Sequence[str]) -> list[list[int]]:
    plain = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    plain.encode_special_tokens = True
    special = tokenizer.special_tokens
    return [[special["cls_token"].id, *plain.encode(text).ids, special["sep_token"].id] for text in texts]


def encoded(encoder: Encoder, texts: Sequence[str]) -> list[list[int]]:
    ids, lengths = encoder.encode(texts)
    assert ids.dtype == encoder.dtype
    assert lengths.sum() == len(ids)
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []


VARIANTS = [
    {"normalizer": {"lowercase": True}},
    {"normalizer": {"lowercase": False}},
    {"normalizer": {"lowercase": True, "strip_accents": False}},
    {"normalizer": {"lowercase": False, "strip_accents": True}},
    {"normalizer": {"lowercase": True, "handle_chinese_chars": False}},
    {"normalizer": {"clean_text": False}},
    {"normalizer": {"clean_text": False, "lowercase": False}},
    {"model": {"continuing_subword_prefix": "@"}},
    {"model": {"continuing_subword_prefix": "[U"}},
    {"model": {"max_input_chars_per_word": 5}},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str, indirect=True)
@settings(max_examples=100)
@given(texts=TEXTS)
@example(texts=ODDITIES)
@example(texts=["".join(ODDITIES), " ".join(ODDITIES), "a".join(ODDITIES), "\v".join(ODDITIES)])
def test_nanotoken_gives_the_tokenizers_ids(variant: CorpusTokenizer, fast: Encoder, texts: list[str]) -> None:
    assert fast.is_checked
    rows = encoded(fast, texts)
    assert rows == expected(variant, texts)
    assert not any(fast.differs(text, np.array(row)) for text, row in zip(texts, rows, strict=True))


@pytest.mark.parametrize("variant", VARIANTS, ids=str, indirect=True)
@pytest.mark.parametrize(
    "codes",
    [
        [*range(0x3200), *range(0xFB00, 0xFFFF, 3), *range(0x10000, 0x110000, 997)],
        pytest.param([*range(0xD800), *range(0xE000, 0x110000)], marks=pytest.mark.long),
    ],
    ids=["most", "all"],
)
def test_every_code_point_alone_and_between_letters(variant: CorpusTokenizer, fast: Encoder, codes: list[int]) -> None:
    plain = Encoder(variant, None)
    points = [f"a{point}b {point}c d{point} {point}" for point in map(chr, codes)]
    texts = [" ".join(points[start : start + 500]) for start in range(0, len(points), 500)]
    (ids, lengths), (true_ids, true_lengths) = (encoder.encode(texts) for encoder in (fast, plain))
    assert (lengths == true_lengths).all()
    assert (ids == true_ids).all()


@pytest.mark.parametrize("variant", VARIANTS, ids=str, indirect=True)
@settings(max_examples=50)
@given(texts=TEXTS, longest=st.integers(0, 8))
def test_the_pieces_of_a_text_have_its_ids(variant: CorpusTokenizer, texts: list[str], longest: int) -> None:
    text = "".join(texts)
    pieces = list(cut(text, longest))
    assert all(not set(piece[longest:]) & set(" \t\n\r") for piece in pieces)
    rows = expected(variant, [text, *pieces])
    assert rows[0][1:-1] == [*itertools.chain.from_iterable(row[1:-1] for row in rows[1:])]


@pytest.mark.slow
@pytest.mark.parametrize("by_nanotoken", [True, False])
def test_a_text_of_many_pieces_stands_among_others(tokenizer: CorpusTokenizer, by_nanotoken: bool) -> None:
    sentence = "the quick\v brown\u2028fox, jumps "
    texts = ["the fox", sentence * (PIECE_CHARACTERS // len(sentence) * 2 + 3), "", "x" * (PIECE_CHARACTERS + 1)]
    encoder = Encoder.of(tokenizer) if by_nanotoken else Encoder(tokenizer, None)
    assert encoded(encoder, texts) == expected(tokenizer, texts)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "its normalizer is NFC, not BertNormalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer is Whitespace, not BertPreTokenizer"),
        (
            {"added_tokens": {"content": "foo", "special": False, "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": True}},
            "`foo` was added to it, which may match inside words",
        ),
    ],
)  # fmt: skip
def test_another_kind_of_tokenizer_encodes_itself_and_the_reason_is_told(
    tokenizer_folder: Path, tmp_path: Path, parts: dict[str, Any], reason: str
) -> None:
    tokenizer = changed(tokenizer_folder, tmp_path / "other", parts)
    assert load_fast(tokenizer) == reason
    encoder = Encoder.of(tokenizer)
    assert not encoder.is_checked
    texts = ["the quick foo", "xfoox\vjumps @ the", ""]
    assert encoded(encoder, texts) == expected(tokenizer, texts)


@pytest.mark.parametrize("kind", ["Unigram", "byte BPE", "no WordPiece behind BERT's normalizer"])
def test_a_tokenizer_that_nanotoken_does_not_know_encodes_itself(tmp_path: Path, kind: str) -> None:
    from tokenizers import normalizers, pre_tokenizers

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(97, 123)]
    if kind == "Unigram":
        made = Tokenizer(models.Unigram([(piece, -1.0) for piece in [*specials, "▁", *letters]], unk_id=1))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        made = Tokenizer(models.BPE({piece: id_ for id_, piece in enumerate([*specials, "Ġ", *letters])}, []))
        if kind == "byte BPE":
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        else:
            made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(specials)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = CorpusTokenizer.find(str(tmp_path))
    reason = load_fast(tokenizer)
    assert isinstance(reason, str)
    assert reason.startswith("nanotoken refuses it: " if "WordPiece" in kind else "its normalizer is None")
    texts = ["the quick fox", "a" * 70_000 + " b"]
    assert encoded(Encoder.of(tokenizer), texts) == expected(tokenizer, texts)


@pytest.mark.slow
def test_without_nanotoken_tokenizers_encodes_and_the_command_says_so(
    tokenizer_folder: Path, tmp_path: Path, oscar: Callable[..., Any], write_shard: Callable[..., Path]
) -> None:
    write_shard(tmp_path / "in/part.jsonl", [oscar("the quick brown fox " * 5, number) for number in range(9)])
    (tmp_path / "path/nanotoken").mkdir(parents=True)
    (tmp_path / "path/nanotoken/__init__.py").write_text("raise ImportError('planted')")
    made = {}
    for name, path in (("with", ""), ("without", str(tmp_path / "path"))):
        result = prepared(tmp_path / "in", tmp_path / name, tokenizer_folder, path)
        assert result.returncode == 0, result.stderr
        assert ("nanotoken is not installed" in result.stderr) == bool(path)
        made[name] = json.loads((tmp_path / name / "manifest.json").read_text())
    assert made["with"]["corpus_hash"] == made["without"]["corpus_hash"]
    assert made["with"]["ledger"]["notes"] == {"ids_checked": 1, "ids_different": 0}
    assert made["without"]["ledger"]["notes"] == {}


def prepared(inputs: Path, out: Path, tokenizer: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run `symbert prepare` with a folder before all others to import from."""
    command = [
        sys.executable, "-m", "cli", "prepare", str(inputs), "--out", str(out), "--tokenizer", str(tokenizer),
        "--sequence-length", "16", "--validation-samples", "0", "--workers", "1", "--no-report",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


# Loads the real package under its name, with a tokenizer that takes two words for each other.
WRONG = """
import importlib.machinery, importlib.util, json, sys
here = sys.path.index({here!r})
spec = importlib.machinery.PathFinder.find_spec("nanotoken", sys.path[:here] + sys.path[here + 1:])
real = importlib.util.module_from_spec(spec)
sys.modules["nanotoken"] = real
spec.loader.exec_module(real)

class WordPieceTokenizer:
    @staticmethod
    def from_json(text):
        document = json.loads(text)
        words = document["model"]["vocab"]
        words["fox"], words["dog"] = words["dog"], words["fox"]
        return _from_json(json.dumps(document))

_from_json = real.WordPieceTokenizer.from_json
real.WordPieceTokenizer = WordPieceTokenizer
"""


@pytest.mark.slow
def test_a_wrong_id_ends_the_run_and_names_the_document(
    tokenizer_folder: Path, tmp_path: Path, oscar: Callable[..., Any], write_shard: Callable[..., Path]
) -> None:
    records = [oscar("tiny", 0, quality_warnings=["tiny"]), oscar("the quick brown fox " * 5, 1)]
    write_shard(tmp_path / "in/part.jsonl", records * 5)
    (tmp_path / "path/nanotoken").mkdir(parents=True)
    (tmp_path / "path/nanotoken/__init__.py").write_text(WRONG.format(here=str(tmp_path / "path")))
    result = prepared(tmp_path / "in", tmp_path / "out", tokenizer_folder, str(tmp_path / "path"))
    assert result.returncode == 1
    error, hint = (line for line in result.stderr.splitlines() if line.startswith(("error: ", "hint: ")))
    assert error == f"error: {tmp_path}/in/part.jsonl line 2: nanotoken gives other ids than tokenizers"
    assert "pip uninstall nanotoken" in hint
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_after_a_wrong_id_the_same_command_makes_anew_what_nanotoken_had_made(
    tokenizer_folder: Path, tmp_path: Path, oscar: Callable[..., Any], write_shard: Callable[..., Path]
) -> None:
    texts = {"a": ["the quick cat " * 9, "the quick fox " * 9], "b": ["the lazy dog " * 9]}
    for name, lines in texts.items():
        write_shard(tmp_path / f"in/{name}.jsonl", [oscar(text, number) for number, text in enumerate(lines)])
    (tmp_path / "path/nanotoken").mkdir(parents=True)
    (tmp_path / "path/nanotoken/__init__.py").write_text(WRONG.format(here=str(tmp_path / "path")))
    result = prepared(tmp_path / "in", tmp_path / "out", tokenizer_folder, str(tmp_path / "path"))
    assert "b.jsonl line 1: nanotoken gives other ids" in result.stderr
    made = json.loads((tmp_path / "out/units/data-00000-of-00002.json").read_text())
    assert made["ledger"]["notes"] == {"ids_checked": 1, "ids_different": 0}  # its second document is wrong
    for path in (str(tmp_path / "path"), ""):
        result = prepared(tmp_path / "in", tmp_path / "out", tokenizer_folder, path)
        assert result.returncode == 0, result.stderr
        assert ("a.jsonl was made anew: nanotoken computed its ids" in result.stderr) == bool(path)
        assert "tokenizers computes this corpus, slowly, for nanotoken once gave it a wrong id" in result.stderr
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["ledger"]["notes"] == {}
    prepared(tmp_path / "in", tmp_path / "fresh", tokenizer_folder, "")
    assert manifest["corpus_hash"] == json.loads((tmp_path / "fresh/manifest.json").read_text())["corpus_hash"]


@pytest.mark.parametrize(
    ("first", "found"),
    [(0, 0), (1, None), (999, None), (1000, 1000), (2000, 2000)],
    ids=["the first of the unit", "the second", "the 1,000th", "the 1,001st", "the 2,001st"],
)
def test_one_kept_document_in_a_thousand_is_checked_whatever_the_blocks(
    tokenizer: CorpusTokenizer, tmp_path: Path, oscar: Callable[..., Any], write_shard: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch, first: int, found: int | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "oscar_prep.read.ShardReader.__init__.__kwdefaults__", {"block_bytes": 3000, "longest_line": 1 << 20}
    )
    document = json.loads((tokenizer.folder / "tokenizer.json").read_text())
    shutil.copytree(tokenizer.folder, tmp_path / "wrong")
    words = document["model"]["vocab"]
    words["fox"], words["dog"] = words["dog"], words["fox"]
    (tmp_path / "wrong/tokenizer.json").write_text(json.dumps(document))
    wrong = load_fast(CorpusTokenizer.find(str(tmp_path / "wrong")))
    assert isinstance(wrong, nanotoken.WordPieceTokenizer)
    lines = [oscar("a fox" if number == first else "a cat", number) for number in range(2001)]
    path = write_shard(tmp_path / "part.jsonl", lines)
    processor = UnitProcessor(
        tmp_path / "out", Configuration(sequence_length=8, validation_samples=0), Encoder(tokenizer, wrong)
    )
    unit = Unit(InputFile(path, path.name), 0, 1)
    if found is None:
        notes = processor.process(unit, Budget(), lambda *_: None).ledger.notes
        assert notes == {"ids_checked": 3, "ids_different": 0}
    else:
        with pytest.raises(PrepareError, match=rf"part\.jsonl line {found + 1}: nanotoken gives other ids"):
            processor.process(unit, Budget(), lambda *_: None)


def test_of_a_long_text_the_start_is_checked(tokenizer: CorpusTokenizer) -> None:
    encoder = Encoder.of(tokenizer)
    text = "the fox " * CHECKED_CHARACTERS
    ids, _ = encoder.encode([text])
    assert not encoder.differs(text, ids)
    assert not encoder.differs("x" * (CHECKED_CHARACTERS + 9), ids)


def test_truncation_and_padding_in_the_file_are_set_aside(tokenizer_folder: Path, tmp_path: Path) -> None:
    limited = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    limited.enable_truncation(4)
    limited.enable_padding(length=10)
    limited.save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(tmp_path / "tokenizer.json").encode("the fox jumps over the dog").ids) == 7
    tokenizer = CorpusTokenizer.find(str(tmp_path))
    for encoder in (Encoder.of(tokenizer), Encoder(tokenizer, None)):
        (row,) = encoded(encoder, ["the fox jumps over the dog"])
        assert len(row) == 9


@pytest.mark.shared
@settings(max_examples=60)
@given(texts=TEXTS)
def test_berts_own_vocabulary_gives_the_same_ids(shared: Path, texts: list[str]) -> None:
    fast, plain = berts_encoders(shared / "bert-base-uncased")
    assert encoded(fast, texts) == encoded(plain, texts)


@functools.cache
def berts_encoders(folder: Path) -> tuple[Encoder, Encoder]:
    tokenizer = CorpusTokenizer.find(str(folder))
    return Encoder.of(tokenizer), Encoder(tokenizer, None)


@pytest.mark.shared
def test_ids_are_those_of_transformers_tokenizer(shared: Path) -> None:
    from transformers import AutoTokenizer

    folder = shared / "bert-base-uncased"
    texts = ["Royal Mail workers have voted 3:1", "naïve café 日本\u2028x", "", "don't [SEP] [MASK] ##ing"]
    theirs = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)(texts)["input_ids"]
    assert encoded(Encoder.of(CorpusTokenizer.find(str(folder))), texts) == theirs
