"""All that decides the content of one corpus, and where its state is kept."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.remote import RemotePath
from oscar_prep.configuration import Configuration
from oscar_prep.inputs import STATE as STATE
from oscar_prep.inputs import InputFile
from oscar_prep.record import Unit
from oscar_prep.sources import NO_SOURCES, Sources
from oscar_prep.tokenizer import CorpusTokenizer

FORMAT, FORMAT_VERSION = "symbert corpus", 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer"
INDEX = "units/blocklists.index"
MANIFEST_AGAIN = "put it back from a copy; or delete it, and the command that made the corpus writes it again"
"""What to do about a damaged manifest."""


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
        return {
            "format_version": FORMAT_VERSION,
            "configuration": self.configuration.as_json(),
            "tokenizer": self.tokenizer.sha256,
            **self.sources.identity(self.configuration),
            "inputs": {f"{index:05}": file.name for index, file in enumerate(self.files)},
        }
