"""The tokenizer of a corpus: found, made complete for AutoTokenizer, and identified by its hash."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from durable.errors import with_hint
from durable.files import file_sha256, whole_folder
from durable.remote import Place
from durable.tokenizer_settings import contradicted, is_berts, opens_alike
from oscar_prep.errors import PrepareError
from oscar_prep.shards import read_json

TOKENIZER_FILE, CONFIG_FILE, MAP_FILE = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
COPIED = (TOKENIZER_FILE, "vocab.txt", "vocab.json", "merges.txt", MAP_FILE)
FILES = (*COPIED, CONFIG_FILE, "added_tokens.json")
"""What AutoTokenizer reads of a folder."""
MOST_ID = np.iinfo(np.int32).max
# What each special token is usually called, where the tokenizer's own configuration does not say.
USUAL_NAMES = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "unk_token": ("[UNK]", "<unk>"),
}


@dataclass(frozen=True)
class SpecialToken:
    """A token that no text produces, and its id."""

    token: str
    id: int


@dataclass(frozen=True)
class CorpusTokenizer:
    """A tokenizer folder with all that pre-training needs of it."""

    folder: Path
    name: str
    files: dict[str, str]
    """Name and sha256 of every file that `save` writes."""
    vocabulary_size: int
    """The highest id and one: the rows of a model's table of embeddings, of which ids left out use none."""
    special_tokens: dict[str, SpecialToken]
    config: dict[str, Any]
    """The settings that `save` writes."""
    mended: Mapping[str, Any] = field(default_factory=dict)
    """Those among them that the tokenizer came without, or with another value that AutoTokenizer would have taken."""

    @property
    def sha256(self) -> str:
        """The hash of tokenizer.json, which alone decides the ids of words."""
        return self.files[TOKENIZER_FILE]

    @property
    def dtype(self) -> np.dtype:
        """The narrowest type that holds every id: uint16, or int32 where the highest exceeds 65,535."""
        return np.dtype(np.uint16 if self.vocabulary_size <= 1 << 16 else np.int32)

    @property
    def opens_alike(self) -> bool:
        """Whether AutoTokenizer is known to give these ids; if not, what `save` writes must be opened and asked."""
        return opens_alike(self.config, read_json(self.folder / TOKENIZER_FILE))

    def with_settings(self, settings: Mapping[str, Any]) -> "CorpusTokenizer":
        """The same, saved with these settings too."""
        config = {**self.config, **settings}
        files = self.files | {CONFIG_FILE: hashlib.sha256(_as_file(config)).hexdigest()}
        return replace(self, config=config, files=files, mended={**self.mended, **settings})

    @classmethod
    def find(cls, source: str) -> "CorpusTokenizer":
        """The tokenizer in a folder, or that of a model on the Hugging Face hub.

        Raises PrepareError if there is none, it is not a fast tokenizer, its settings are damaged, it lacks
        one of the special tokens, or one of them means something else too.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(source)
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise with_hint(
                PrepareError(f"{folder} holds no {TOKENIZER_FILE}"),
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one",
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - tokenizers raises a bare Exception for a broken file
            raise PrepareError(f"{path} is no tokenizer: {error}") from None
        _check_unknown(tokenizer, path)
        config = _settings(folder / CONFIG_FILE)
        named = _special_names(folder / CONFIG_FILE) | _special_names(folder / MAP_FILE)
        special = _special_tokens(tokenizer, named, path)
        _check_special(tokenizer, special, folder)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
        config |= {name: token.token for name, token in special.items()}
        files = {name: file_sha256(folder / name) for name in COPIED if (folder / name).is_file()}
        found = cls(folder, Path(source).name, files, _size(tokenizer, path), special, config)
        return found.with_settings(contradicted(config, read_json(path)) if is_berts(config) else {})

    def save(self, folder: Path) -> None:
        """Write the folder that AutoTokenizer.from_pretrained reads, whole or not at all."""
        with whole_folder(folder, name="tokenizer") as partial:
            for name in COPIED:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, partial / name)
            (partial / CONFIG_FILE).write_bytes(_as_file(self.config))

    def as_json(self) -> dict[str, Any]:
        """The tokenizer as the manifest names it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "vocabulary_size": self.vocabulary_size,
            "special_tokens": {name: vars(special) for name, special in self.special_tokens.items()},
            "files": dict(self.files),
        }


def files_of(folder: Place) -> dict[str, str]:
    """Name and sha256 of what AutoTokenizer reads of a folder; empty if there is none."""
    return {name: file_sha256(folder / name) for name in FILES if (folder / name).is_file()}


def _size(tokenizer: Tokenizer, path: Path) -> int:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    last = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[last] > MOST_ID:
        raise PrepareError(f"{path} gives `{last}` the id {vocabulary[last]:,}, expected at most {MOST_ID:,}")
    return vocabulary[last] + 1


def _special_names(path: Path) -> dict[str, str | None]:
    """The special tokens that a file of settings names."""
    named = {}
    for name, value in _settings(path).items():
        if name in USUAL_NAMES:
            token = value.get("content") if isinstance(value, dict) else value
            if value is not None and not isinstance(token, str):
                raise PrepareError(f"{path}: `{name}` is {value!r}, expected a token such as {USUAL_NAMES[name][0]}")
            named[name] = token
    return named


def _special_tokens(tokenizer: Tokenizer, named: dict[str, str | None], path: Path) -> dict[str, SpecialToken]:
    found = {}
    for name, usual in USUAL_NAMES.items():
        own = named.get(name)
        tokens = (own,) if own else usual
        identifiers = {token: tokenizer.token_to_id(token) for token in tokens}
        special = next((SpecialToken(token, id_) for token, id_ in identifiers.items() if id_ is not None), None)
        if special is None:
            raise PrepareError(f"{path} has no {name} ({' or '.join(tokens)})")
        found[name] = special
    return found


def _check_unknown(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse a model that raises at the first word that it does not know."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and tokenizer.model.token_to_id(unknown) is None:
        raise PrepareError(f"{path}: its model's unk_token `{unknown}` is not in its vocabulary")


def _check_special(tokenizer: Tokenizer, special: dict[str, SpecialToken], folder: Path) -> None:
    """Refuse special tokens that could not be told apart, or from words.

    The padding may be any other, since a corpus holds none. A token that tokenizer.json declares special is taken at
    its word, though a text may produce it: `<s>` is a piece of every Unigram model that has it. So is one of a usual
    name, which no page means as a word.
    """
    names: dict[int, str] = {}
    for name, token in special.items():
        other = name if name == "pad_token" else names.setdefault(token.id, name)
        if other != name:
            raise with_hint(
                PrepareError(f"{folder}: {other} and {name} are one, `{token.token}`, expected two tokens"),
                f"{CONFIG_FILE} and {MAP_FILE} name them",
            )
    declared = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    for name, token in special.items():
        if name == "unk_token" or token.token in declared or token.token in USUAL_NAMES[name]:
            continue
        if token.id in tokenizer.encode(token.token, add_special_tokens=False).ids:
            raise with_hint(
                PrepareError(f"{folder}: the {name} `{token.token}` is an ordinary word, which a text may hold"),
                f"name another in {CONFIG_FILE}, or declare it special among the added_tokens of {TOKENIZER_FILE}",
            )


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG_FILE, *COPIED]))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise with_hint(
            PrepareError(f"{name} is neither a folder nor a tokenizer on the Hugging Face hub: {reason}"),
            "give a folder that holds tokenizer.json, as in --tokenizer ./bert-base-uncased",
        ) from None


def _as_file(config: dict[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _settings(path: Path) -> dict[str, Any]:
    """What a file of settings holds; nothing if there is none."""
    if not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise PrepareError(f"{path} holds no settings, expected a JSON object")
    return settings
