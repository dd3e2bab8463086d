"""All that decides the content of one corpus, and where its state is kept."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.remote import Place, RemotePath
from durable.settings import difference
from oscar_prep.configuration import Configuration
from oscar_prep.inputs import STATE as STATE
from oscar_prep.inputs import InputFile
from oscar_prep.record import Unit
from oscar_prep.shapes import MANIFEST_AGAIN as MANIFEST_AGAIN
from oscar_prep.shards import read_json
from oscar_prep.sources import NO_SOURCES, Sources
from oscar_prep.tokenizer import TOKENIZER_FILE, CorpusTokenizer, files_of

FORMAT, FORMAT_VERSION = "symbert corpus", 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer"
INDEX = "units/blocklists.index"


@dataclass(frozen=True)
class Plan:
    """One corpus to be made: all that decides its content."""

    out: Path
    files: tuple[InputFile, ...]
    tokenizer: CorpusTokenizer
    configuration: Configuration
    sources: Sources = NO_SOURCES
    target: RemotePath | None = None
    """Where the corpus is copied to, unit by unit; None if `out` is all that was asked for."""

    def units(self) -> list[Unit]:
        """The units in file order."""
        return [Unit(file, index, len(self.files)) for index, file in enumerate(self.files)]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to continue another; inputs are compared by their own hashes."""
        files = self.tokenizer.files
        return {
            "format_version": FORMAT_VERSION,
            "configuration": self.configuration.as_json(),
            "tokenizer": self.tokenizer.sha256,
            "tokenizer_files": {name: sha256 for name, sha256 in files.items() if name != TOKENIZER_FILE},
            "special_tokens": {name: vars(token) for name, token in self.tokenizer.special_tokens.items()},
            **self.sources.identity(self.configuration),
            "inputs": {f"{index:05}": file.name for index, file in enumerate(self.files)},
        }


def changes_since(folder: Place, identity: dict[str, Any]) -> list[str]:
    """What differs between the settings that the corpus in `folder` was begun with and these, one line a key."""
    begun = read_json(folder / STATE)
    if "tokenizer_files" not in begun:  # by an older symbert: its copy of the tokenizer shows which it was
        files = files_of(folder / TOKENIZER)
        files.pop(TOKENIZER_FILE, None)
        told = {name: identity[name] for name in ("tokenizer_files", "special_tokens")}
        begun |= told | ({"tokenizer_files": files} if files else {})
    return difference(begun, identity)
