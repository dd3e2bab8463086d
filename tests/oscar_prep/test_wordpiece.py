import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from transformers import AutoTokenizer

from oscar_prep.errors import PrepareError
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.wordpiece import SPECIAL_TOKENS, _alphabet, save, train_wordpiece

TEXT = [
    "The quick brown fox jumps over the lazy dog; the dogs jumped over the quicker foxes.",
    "A fox is quick, a dog is lazy, and jumping foxes overjoy the laziest of all dogs.",
    "Cafés in 東京 sell café au lait: 3 €, or 4 € with a brownie.",
]


def trained(size: int, texts: list[str] = TEXT, **options: bool) -> Tokenizer:
    return train_wordpiece(lambda: [texts], size, **options)


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_same_text_gives_the_same_tokenizer_every_time(lower_case: bool) -> None:
    first, *others = (trained(100, lower_case=lower_case).to_str() for _ in range(8))
    assert set(others) == {first}


def test_the_order_of_the_documents_changes_nothing() -> None:
    assert trained(100, TEXT[::-1]).to_str() == trained(100).to_str()


def test_the_vocabulary_begins_with_berts_special_tokens_and_has_the_size_that_was_asked_for() -> None:
    vocabulary = trained(100).get_vocab()
    assert sorted(vocabulary.values()) == list(range(100))
    assert [vocabulary[token] for token in SPECIAL_TOKENS.values()] == list(range(5))
    assert {"the", "fox", "quick", "##es", "東"} <= vocabulary.keys()


def test_punctuation_and_chinese_characters_are_never_taken_for_the_inside_of_a_word() -> None:
    vocabulary = trained(100).get_vocab()
    assert {";", "京", "€"} <= vocabulary.keys()
    assert not {"##;", "##京", "##,"} & vocabulary.keys()


def test_a_text_too_small_for_the_size_gives_a_smaller_vocabulary() -> None:
    assert trained(5_000).get_vocab_size() < 200


def test_only_berts_special_tokens_are_special() -> None:
    tokenizer = trained(100)
    assert [str(token) for token in tokenizer.get_added_tokens_decoder().values()] == list(SPECIAL_TOKENS.values())
    tokens = tokenizer.encode("the [MASK] fox", "A dog").tokens
    assert tokens == ["[CLS]", "the", "[MASK]", "fox", "[SEP]", "a", "dog", "[SEP]"]


def test_a_cased_tokenizer_keeps_capitals_and_accents() -> None:
    assert trained(160, lower_case=False).encode("Cafés").tokens[1].startswith("C")
    assert "".join(trained(160).encode("Cafés").tokens[1:-1]).replace("##", "") == "cafes"


def test_a_saved_tokenizer_is_complete_for_autotokenizer_and_for_prepare(tmp_path: Path) -> None:
    tokenizer = trained(100)
    save(tokenizer, tmp_path / "tokenizer")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert loaded(TEXT[0], TEXT[2]).input_ids == tokenizer.encode(TEXT[0], TEXT[2]).ids
    assert loaded(TEXT[0], TEXT[2]).token_type_ids == tokenizer.encode(TEXT[0], TEXT[2]).type_ids
    assert loaded.decode(loaded(TEXT[0]).input_ids, skip_special_tokens=True).startswith("the quick brown fox jumps")
    assert (loaded.model_max_length, loaded.pad_token_id, loaded.mask_token) == (512, 0, "[MASK]")
    assert (tmp_path / "tokenizer" / "vocab.txt").read_text("utf-8").split("\n")[:2] == ["[PAD]", "[UNK]"]
    found = CorpusTokenizer.find(str(tmp_path / "tokenizer"))
    assert {name: special.token for name, special in found.special_tokens.items()} == SPECIAL_TOKENS
    assert found.vocabulary_size == 100


@given(st.lists(st.text()), st.booleans())
def test_the_alphabet_is_that_of_the_normalised_text(texts: list[str], lower_case: bool) -> None:
    normalizer = BertNormalizer(lowercase=lower_case)
    normalised = normalizer.normalize_str("".join(texts))
    assert set(_alphabet([texts], normalizer)) == {character for character in normalised if not character.isspace()}


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(PrepareError, match=r"a vocabulary of 20 does not hold the \d+ characters"):
        trained(20)


@pytest.mark.parametrize("texts", [[], [""], [" \n\t"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(PrepareError, match="holds no text"):
        trained(100, texts)


def test_only_the_most_frequent_characters_are_kept() -> None:
    many = [chr(code) for code in range(0x4E00, 0x4E00 + 1_500) if unicodedata.category(chr(code)) == "Lo"]
    tokenizer = trained(5_000, ["".join(many), "".join(many[700:])])
    assert tokenizer.token_to_id(many[700]) is not None
    assert tokenizer.token_to_id(many[699]) is None
    assert tokenizer.token_to_id(many[0]) is not None
