"""The tokenizer of a corpus: found, made complete for AutoTokenizer, and identified by its hash."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from durable.errors import with_hint
from durable.files import file_sha256, whole_folder
from oscar_prep.errors import PrepareError

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
COPIED = (TOKENIZER_FILE, "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json")
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
    sha256: str
    vocabulary_size: int
    """The highest id and one: the rows of a model's table of embeddings, of which ids left out use none."""
    special_tokens: dict[str, SpecialToken]
    config: dict[str, Any]
    why_no_table: str | None
    """What keeps its words from being looked up one by one, instead of in their text; None if nothing does."""

    @property
    def dtype(self) -> np.dtype:
        """The narrowest type that holds every id: uint16, or int32 where the highest exceeds 65,535."""
        return np.dtype(np.uint16 if self.vocabulary_size <= 1 << 16 else np.int32)

    @classmethod
    def find(cls, source: str) -> "CorpusTokenizer":
        """The tokenizer in a folder, or that of a model on the Hugging Face hub.

        Raises PrepareError if there is none, it is not a fast tokenizer, or it lacks one of the special tokens.
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
            config = _read_json(folder / CONFIG_FILE) | {}
        except Exception as error:  # noqa: BLE001 - tokenizers raises a bare Exception for a broken file
            raise PrepareError(f"{path} is no tokenizer: {error}") from None
        special = _special_tokens(tokenizer, config | _read_json(folder / "special_tokens_map.json"), path)
        size = _size(tokenizer, path)
        return cls(folder, Path(source).name, file_sha256(path), size, special, config, why_no_table(tokenizer))

    def save(self, folder: Path) -> None:
        """Write the folder that AutoTokenizer.from_pretrained reads, whole or not at all."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.config}
        config |= {name: special.token for name, special in self.special_tokens.items()}
        with whole_folder(folder, name="tokenizer") as partial:
            for name in COPIED:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, partial / name)
            (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def as_json(self) -> dict[str, Any]:
        """The tokenizer as the manifest names it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "vocabulary_size": self.vocabulary_size,
            "special_tokens": {name: vars(special) for name, special in self.special_tokens.items()},
        }


def why_no_table(tokenizer: Tokenizer) -> str | None:
    """What keeps a tokenizer from being BERT's kind, whose words have the same ids in every text."""
    for part, wanted in (("model", WordPiece), ("normalizer", BertNormalizer), ("pre_tokenizer", BertPreTokenizer)):
        found = getattr(tokenizer, part)
        if not isinstance(found, wanted):
            return f"its {part} is {type(found).__name__}, not {wanted.__name__}"
    if not tokenizer.normalizer.clean_text:
        return "its normalizer does not clean text"
    if not tokenizer.model.continuing_subword_prefix:
        return "its model marks no continuations"
    ordinary = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    return f"`{ordinary[0]}` was added to it, which may match inside words" if ordinary else None


def _size(tokenizer: Tokenizer, path: Path) -> int:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    last = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[last] > MOST_ID:
        raise PrepareError(f"{path} gives `{last}` the id {vocabulary[last]:,}, expected at most {MOST_ID:,}")
    return vocabulary[last] + 1


def _special_tokens(tokenizer: Tokenizer, config: dict[str, Any], path: Path) -> dict[str, SpecialToken]:
    found = {}
    for name, usual in USUAL_NAMES.items():
        named = config.get(name)
        named = named.get("content") if isinstance(named, dict) else named
        for token in [named] if named else usual:
            identifier = tokenizer.token_to_id(token)
            if identifier is not None:
                found[name] = SpecialToken(token, identifier)
                break
        else:
            raise PrepareError(f"{path} has no {name} ({' or '.join([named] if named else usual)})")
    return found


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


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
