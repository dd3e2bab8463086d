"""AutoTokenizer on a folder, held to the folder's tokenizer.json: the ids of a corpus are those of that file alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from durable.checked import damaged, read_json
from durable.errors import with_hint
from durable.tokenizer_settings import AS_IT_IS, SPECIAL, contradicted
from train.errors import TrainError

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
TELLING = {
    "capitals": "Hello WORLD İstanbul ẞ ǅ",
    "accents": "Café naïve Ångström e\u0301 o\u0308 ñ",
    "Chinese characters": "ab你好cd 日本",
    "control characters": "a\x00b\x07c\x7fd\u00ade\u200df\ufffdg",
    "white space": " a\tb\nc\r\nd\u00a0e\u2003f\u3000g\x0bh\u2028i  j ",
    "unknown characters": "\ue000 ☃☃ 🙂x",
    "compatibility characters": "ﬁ ½ ① Ａ ℌ",
    "punctuation": "don't a_b e-mail, (x) ... !!! $5.00 «y» 3+4",
    "long words": f"{'a' * 100} {'a' * 101}",
}
"""Texts that tell settings of tokenizers apart."""
# Words of the vocabulary that are asked for too, for one that does not hold the letters of the texts above.
VOCABULARY_WORDS = 200


def open_tokenizer(folder: Path, **settings: Any) -> Any:
    """The folder's tokenizer as AutoTokenizer opens it. Raises TrainError if it cannot."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **settings)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(
            f"{folder}: its tokenizer is damaged, or none that AutoTokenizer opens: {first_line(error)}"
        ) from None


def open_checked_tokenizer(folder: Path) -> Any:
    """The same. Raises TrainError if it gives other ids than the folder's tokenizer.json, where there is one."""
    opened = open_tokenizer(folder)
    if what := _difference(folder, opened):
        raise _refusal(folder, folder, what)
    return opened


def settings_to_add(folder: Path, called: Path | None = None) -> dict[str, bool | None]:
    """What tokenizer_config.json must say for AutoTokenizer to give the ids of tokenizer.json; most often nothing.

    Raises TrainError, naming the folder `called`, if no setting of the normaliser brings that about.
    """
    if not (folder / TOKENIZER).is_file():
        return {}
    found = contradicted(_read(folder / SETTINGS), _read(folder / TOKENIZER))
    tried: list[Mapping[str, Any]] = [{}, found] if found else [{}]
    for added in tried:
        try:
            what = _difference(folder, open_tokenizer(folder, **added))
        except TrainError as error:
            what = str(error).partition(": ")[2]
        if not what:
            return dict(added)
    raise _refusal(folder, called or folder, what)


def add_settings(folder: Path, called: Path | None = None) -> dict[str, bool | None]:
    """Write them; returns what was written. Raises TrainError as `settings_to_add` does."""
    added = settings_to_add(folder, called)
    if added:
        settings = json.dumps(_read(folder / SETTINGS) | added, indent=2, ensure_ascii=False)
        (folder / SETTINGS).write_text(settings + "\n", "utf-8")
    return added


def _difference(folder: Path, opened: Any) -> str:
    """In what the opened tokenizer differs from the folder's tokenizer.json; empty if it does not, or there is none."""
    if not (folder / TOKENIZER).is_file():
        return ""
    own = Tokenizer.from_file(str(folder / TOKENIZER))
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = bool(getattr(opened, "split_special_tokens", False))
    for name in SPECIAL:
        token = getattr(opened, name, None)
        if token is not None and own.token_to_id(token) != opened.convert_tokens_to_ids(token):
            return f"it gives the {name} `{token}` another id"
    # AutoTokenizer finds these in a text, whether or not tokenizer.json declares them.
    own.add_special_tokens([token for name in SPECIAL if (token := getattr(opened, name, None)) is not None])
    texts = TELLING | _own_texts(own, opened)
    different = [name for name, text in texts.items() if _ids(own, text) != _ids(opened, text)]
    return f"it gives other ids to {', '.join(different)}" if different else ""


def _own_texts(own: Tokenizer, opened: Any) -> dict[str, str]:
    words = sorted(own.get_vocab())
    words = words[:: len(words) // VOCABULARY_WORDS + 1]
    return {
        "words of the vocabulary": " ".join([*words, *map(str.upper, words)]),
        "added tokens": " ".join(f"x{token}x" for token in sorted(opened.get_added_vocab())),
    }


def _ids(tokenizer: Any, text: str) -> list[int] | None:
    """None where it has no id for a word, nor one for unknown words."""
    try:
        if isinstance(tokenizer, Tokenizer):
            return list(tokenizer.encode(text, add_special_tokens=False).ids)
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    except Exception:  # noqa: BLE001 - tokenizers raises a bare Exception
        return None


def _refusal(folder: Path, called: Path, what: str) -> TrainError:
    from train.checkpoint import STATE  # which imports this module

    settings, document = _read(folder / SETTINGS), _read(folder / TOKENIZER)
    as_it_is = settings.get("tokenizer_class") in AS_IT_IS
    named = ["tokenizer_class", *({} if as_it_is else contradicted(settings, document))]
    said = " and ".join(f"{name} {json.dumps(settings[name])}" if name in settings else f"no {name}" for name in named)
    error = TrainError(f"{called}: AutoTokenizer is not {TOKENIZER}, by {said} of {SETTINGS}: {what}")
    if as_it_is:
        return with_hint(
            error, f"leave its tokens out of {called / SETTINGS}: those of {TOKENIZER} are read without it"
        )
    mended = f'write "tokenizer_class": "PreTrainedTokenizerFast" into {called / SETTINGS}'
    if not (called / STATE).is_file():
        return with_hint(error, mended)
    # Its own record would call an edited file damaged.
    again = f"symbert export {called} --format hub --out NEW writes a copy with the right settings"
    return with_hint(error, again if called == folder else f"{mended} of a copy without {STATE}")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path, TrainError)
    if not isinstance(content, dict):
        raise damaged(path, "expected a JSON object", TrainError)
    return content


def first_line(error: Exception) -> str:
    """What an error of transformers says first; its own form where that is no sentence."""
    lines = str(error).splitlines()
    return lines[0] if lines and not isinstance(error, KeyError) else repr(error)
