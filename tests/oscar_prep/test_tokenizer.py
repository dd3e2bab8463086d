"""Where a tokenizer comes from, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from oscar_prep.errors import PrepareError
from oscar_prep.tokenize import Encoder
from oscar_prep.tokenizer import CorpusTokenizer


def test_what_the_configuration_does_not_say_is_found_by_the_usual_names(
    tokenizer: CorpusTokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert config["mask_token"] == "[MASK]"
    assert tokenizer.special_tokens["cls_token"].id == 2
    assert CorpusTokenizer.find(str(tmp_path / "saved")).sha256 == tokenizer.sha256


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is no tokenizer"),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"mask_token": "<gone>"}'),
            r"has no mask_token \(<gone>\)",
        ),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), r"tokenizer_config\.json is not JSON"),
        (lambda folder: (folder / "special_tokens_map.json").write_text("{"), r"special_tokens_map\.json is not JSON"),
        (
            lambda folder: (folder / "special_tokens_map.json").write_text('["[CLS]"]'),
            r"special_tokens_map\.json holds no settings, expected a JSON object",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"cls_token": 5}'),
            r"tokenizer_config\.json: `cls_token` is 5, expected a token such as \[CLS\]",
        ),
        (
            lambda folder: (folder / "special_tokens_map.json").write_text('{"sep_token": {"content": 5}}'),
            r"special_tokens_map\.json: `sep_token` is {'content': 5}, expected a token such as \[SEP\]",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text(
                (folder / "tokenizer.json").read_text().replace('"unk_token": "[UNK]"', '"unk_token": "[NONE]"')
            ),
            r"tokenizer\.json: its model's unk_token `\[NONE\]` is not in its vocabulary",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"cls_token": "[SEP]"}'),
            r"cls_token and sep_token are one, `\[SEP\]`, expected two tokens",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text(
                '{"unk_token": "[MASK]", "pad_token": "[MASK]"}'
            ),
            r"mask_token and unk_token are one, `\[MASK\]`, expected two tokens",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"cls_token": "the"}'),
            "the cls_token `the` is an ordinary word, which a text may hold",
        ),
    ],
)
def test_a_folder_without_a_whole_tokenizer_is_refused(
    tokenizer_folder: Path, tmp_path: Path, damage: object, message: str
) -> None:
    shutil.copytree(tokenizer_folder, tmp_path / "copy")
    assert callable(damage)
    damage(tmp_path / "copy")
    with pytest.raises(PrepareError, match=message):
        CorpusTokenizer.find(str(tmp_path / "copy"))


def test_a_name_that_is_neither_here_nor_on_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        PrepareError, match="no-such/model is neither a folder nor a tokenizer on the Hugging Face hub"
    ) as error:
        CorpusTokenizer.find("no-such/model")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_large_vocabulary_takes_wider_integers(tmp_path: Path, tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.add_tokens([f"word{number}" for number in range(66_000)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert str(CorpusTokenizer.find(str(tmp_path)).dtype) == "int32"


@pytest.mark.parametrize("named", ["[SEP]", {"content": "[SEP]", "lstrip": False}])
def test_the_padding_may_be_another_special_token(tokenizer_folder: Path, tmp_path: Path, named: object) -> None:
    shutil.copytree(tokenizer_folder, tmp_path / "copy")
    (tmp_path / "copy/tokenizer_config.json").write_text(json.dumps({"pad_token": named, "cls_token": None}))
    special = CorpusTokenizer.find(str(tmp_path / "copy")).special_tokens
    assert special["pad_token"] == special["sep_token"]
    assert special["cls_token"].token == "[CLS]"


@pytest.mark.parametrize("pre_tokenizer", ["BertPreTokenizer", "WhitespaceSplit"])
def test_special_tokens_of_usual_names_need_no_declaration(
    tokenizer_folder: Path, tmp_path: Path, pre_tokenizer: str
) -> None:
    document = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    document |= {"added_tokens": [], "pre_tokenizer": {"type": pre_tokenizer}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert CorpusTokenizer.find(str(tmp_path)).special_tokens["cls_token"].id == 2


def test_a_special_token_of_another_name_needs_none_where_no_text_produces_it(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    document = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    document["model"]["vocab"]["[BEGIN]"] = len(document["model"]["vocab"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text('{"cls_token": "[BEGIN]"}')
    assert CorpusTokenizer.find(str(tmp_path)).special_tokens["cls_token"].token == "[BEGIN]"


def test_a_word_that_is_declared_special_is_taken_at_its_word(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["the"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"cls_token": "the"}')
    assert CorpusTokenizer.find(str(tmp_path)).special_tokens["cls_token"].token == "the"


def with_id(folder: Path, copy: Path, token: str, identifier: int) -> Path:
    """A copy of a tokenizer folder in which a token of the vocabulary has another id."""
    shutil.copytree(folder, copy)
    document = json.loads((copy / "tokenizer.json").read_text())
    document["model"]["vocab"][token] = identifier
    (copy / "tokenizer.json").write_text(json.dumps(document))
    return copy


@pytest.mark.parametrize(("identifier", "dtype"), [(1 << 16, "int32"), ((1 << 16) - 1, "uint16")])
def test_few_tokens_of_high_ids_take_wider_integers_and_none_wraps(
    tokenizer_folder: Path, tmp_path: Path, identifier: int, dtype: str
) -> None:
    tokenizer = CorpusTokenizer.find(str(with_id(tokenizer_folder, tmp_path / "holes", "the", identifier)))
    assert str(tokenizer.dtype) == dtype
    assert tokenizer.vocabulary_size == tokenizer.as_json()["vocabulary_size"] == identifier + 1
    for encoder in (Encoder.of(tokenizer), Encoder(tokenizer, None)):
        ids, _ = encoder.encode(["the"])
        assert ids.dtype == dtype
        assert ids.tolist() == [2, identifier, 3]


def test_an_id_that_no_row_can_hold_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = with_id(tokenizer_folder, tmp_path / "holes", "the", 1 << 31)
    with pytest.raises(PrepareError, match="gives `the` the id 2,147,483,648, expected at most 2,147,483,647"):
        CorpusTokenizer.find(str(folder))
