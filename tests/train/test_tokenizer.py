"""AutoTokenizer against tokenizer.json: what the two files of JSON tell, and what only opening the folder tells."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from durable.tokenizer_settings import DEFAULTS, contradicted, opens_alike
from oscar_prep.tokenizer import CorpusTokenizer
from tests.conftest import SHARED
from train.errors import TrainError
from train.tokenizer import TELLING, add_settings, open_checked_tokenizer, settings_to_add

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = sorted({*"".join(TELLING.values()), *"".join(TELLING.values()).lower(), "e", "ı"} - {" "})
MISSING = "missing"


def document(lower: bool = True, accents: bool | None = None, chinese: bool = True) -> dict[str, Any]:
    """A tokenizer.json of BERT's kind that knows every letter of the telling texts."""
    pieces = [*SPECIAL, *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    words = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lower, strip_accents=accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def write(folder: Path, settings: dict[str, Any] | None, content: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def agrees(folder: Path) -> bool:
    """Whether AutoTokenizer itself opens the folder and gives the ids of its tokenizer.json."""
    try:
        open_checked_tokenizer(folder)
    except TrainError:
        return False
    return True


def all_settings(tokenizer_class: object) -> list[dict[str, Any]]:
    values = itertools.product([MISSING, None, True, False], repeat=3)
    chosen = [{name: v for name, v in zip(DEFAULTS, case, strict=True) if v != MISSING} for case in values]
    return [({} if tokenizer_class == MISSING else {"tokenizer_class": tokenizer_class}) | case for case in chosen]


@pytest.mark.parametrize("chinese", [True, False])
@pytest.mark.parametrize("accents", [None, True, False])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(
    ("tokenizer_class", "every"),
    [
        ("BertTokenizer", 7),
        pytest.param("BertTokenizer", 1, marks=pytest.mark.slow),
        pytest.param("BertTokenizerFast", 1, marks=pytest.mark.slow),
    ],
)
def test_what_the_files_tell_of_berts_class_is_what_autotokenizer_does(
    tmp_path: Path, tokenizer_class: str, every: int, lower: bool, accents: bool | None, chinese: bool
) -> None:
    content = document(lower, accents, chinese)
    for settings in all_settings(tokenizer_class)[::every]:
        alike = opens_alike(settings, content)
        folder = write(tmp_path / "tokenizer", settings, content)
        assert alike == agrees(folder), settings
        mended = settings | contradicted(settings, content)
        assert (mended == settings) == alike
        assert alike or agrees(write(folder, mended, content)), mended


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_class_that_takes_tokenizer_json_as_it_is_heeds_no_setting(tmp_path: Path, tokenizer_class: str) -> None:
    content = document(lower=False, accents=True, chinese=False)
    for settings in all_settings(tokenizer_class)[::7]:
        assert opens_alike(settings, content)
        assert agrees(write(tmp_path / "tokenizer", settings, content)), settings


@pytest.mark.parametrize(
    "tokenizer_class", ["ElectraTokenizer", "DistilBertTokenizerFast", "NoSuchTokenizer", None, MISSING]
)
def test_other_classes_are_opened_and_mended_where_the_settings_do_it(tmp_path: Path, tokenizer_class: object) -> None:
    content = document(lower=False, accents=True)
    for settings in all_settings(tokenizer_class)[::5]:
        assert not opens_alike(settings, content)
        folder = write(tmp_path / "tokenizer", settings, content)
        assert agrees(folder) == (not add_settings(folder))
        assert agrees(folder)


def changed(**parts: Any) -> dict[str, Any]:
    content = document()
    for name, value in parts.items():
        part, _, key = name.partition("__")
        content[part] = content[part] | {key: value} if key else value
    return content


NFC_FIRST = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, document()["normalizer"]]}


@pytest.mark.parametrize(
    ("content", "tells"),
    [
        (changed(normalizer=None), "capitals"),
        (changed(normalizer__clean_text=False), "control characters"),
        (changed(normalizer=NFC_FIRST), "compatibility characters"),
        (changed(pre_tokenizer={"type": "Whitespace"}), "punctuation"),
        (changed(pre_tokenizer={"type": "WhitespaceSplit"}), "punctuation"),
        (changed(model__continuing_subword_prefix="@@"), "capitals"),
        (changed(model__max_input_chars_per_word=99), "long words"),
        (changed(model__max_input_chars_per_word=101), "long words"),
        (changed(model__unk_token="a"), "long words"),
    ],
)
def test_what_berts_class_sets_otherwise_and_no_setting_mends_is_refused_by_the_text_that_tells(
    tmp_path: Path, content: dict[str, Any], tells: str
) -> None:
    settings = {"tokenizer_class": "BertTokenizer"}
    assert not opens_alike(settings, content)
    folder = write(tmp_path / "tokenizer", settings, content)
    with pytest.raises(TrainError, match=rf'by tokenizer_class "BertTokenizer" .* other ids to .*{tells}') as error:
        settings_to_add(folder)
    assert error.value.__notes__ == [
        f'write "tokenizer_class": "PreTrainedTokenizerFast" into {folder / "tokenizer_config.json"}'
    ]
    assert agrees(write(folder, {"tokenizer_class": "PreTrainedTokenizerFast"}, content))


@pytest.mark.parametrize(
    "settings",
    [
        {"additional_special_tokens": ["Hello"]},
        {"extra_special_tokens": ["Hello"]},
        {"added_tokens_decoder": {"900": {"content": "Hello", "special": False}}},
        {"bos_token": "é"},
        {"image_token": "é"},
        {"model_specific_special_tokens": {"image_token": "é"}},
        {"cls_token": "<s>"},
    ],
)
def test_tokens_that_the_settings_add_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    for name in ("BertTokenizer", "PreTrainedTokenizerFast"):
        given = {"tokenizer_class": name, **settings}
        folder = write(tmp_path / "tokenizer", given, document(lower=False))
        for opened in (open_checked_tokenizer, settings_to_add):
            with pytest.raises(TrainError, match="added tokens|the cls_token `<s>` another id"):
                opened(folder)
        assert "cls_token" in settings or not opens_alike(given, document(lower=False))


@pytest.mark.shared
def test_the_tokenizer_of_the_papers_is_known_to_open_alike() -> None:
    tokenizer = CorpusTokenizer.find(str(SHARED / "bert-base-uncased"))
    assert "type" not in json.loads((tokenizer.folder / "tokenizer.json").read_text("utf-8"))["model"]
    assert tokenizer.opens_alike
    assert not settings_to_add(tokenizer.folder)


def test_special_tokens_that_tokenizer_json_does_not_declare_are_no_contradiction(tmp_path: Path) -> None:
    assert agrees(write(tmp_path / "tokenizer", {"tokenizer_class": "BertTokenizer"}, changed(added_tokens=[])))


def test_the_refusal_names_the_setting(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "BertTokenizer", "strip_accents": True}
    folder = write(tmp_path / "tokenizer", settings, document(lower=False))
    with pytest.raises(TrainError) as error:
        open_checked_tokenizer(folder)
    assert str(error.value).startswith(
        f'{folder}: AutoTokenizer is not tokenizer.json, by tokenizer_class "BertTokenizer" and no do_lower_case and '
        "strip_accents true of tokenizer_config.json: it gives other ids to capitals, accents"
    )


@pytest.mark.parametrize(
    "damage",
    [lambda f: (f / "tokenizer_config.json").write_text("[]"), lambda f: (f / "tokenizer.json").write_text("{")],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    folder = write(tmp_path / "tokenizer", {}, document())
    damage(folder)
    with pytest.raises(TrainError, match="is damaged"):
        settings_to_add(folder)
