"""The text of a document, read again from the input file that it came from, if that is still the same file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durable.files import file_sha256
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.layout import CONTENT_FIELD, URL_FIELD, Layout
from oscar_prep.parse import parse
from oscar_prep.provenance import Corpus
from oscar_prep.unit import reader_of


class InputFiles:
    """The input of a corpus, in the folder (or the file) that it was made from."""

    def __init__(self, corpus: Corpus, place: Path) -> None:
        """Raises PrepareError if `place` does not exist."""
        if not place.exists():
            raise PrepareError(f"{place} does not exist, expected the input that {corpus.folder} was made from")
        self._place = place
        self._expected = {unit["file"]: unit["input"] for unit in corpus.manifest["units"]}
        settings = corpus.configuration
        self._layout = Layout(settings.get("content_field", CONTENT_FIELD), settings.get("url_field", URL_FIELD))
        self._layout.check()
        self._checked: dict[str, Path] = {}

    def text(self, document: dict[str, Any]) -> str:
        """A document's text. Raises PrepareError if its file is gone or has changed."""
        return self.texts(document["file"], [document["line"]])[0]

    def texts(self, name: str, lines: Sequence[int]) -> list[str]:
        """The texts of documents of the input file `name`, by their lines; the file is read to the last of them.

        Raises PrepareError if the file is gone or has changed.
        """
        path = self._path(name)
        found: dict[int, str] = {}
        with reader_of(InputFile(path, name), self._layout) as reader:
            for block in reader.blocks():
                if len(found) == len(set(lines)):
                    break
                documents = parse(block, self._layout).documents
                for line, text in zip(documents.metadata["line"].to_pylist(), documents.texts, strict=True):
                    if line in lines:
                        found[line] = text
        for line in lines:
            if line not in found:
                raise PrepareError(f"{path} has no document on line {line}")
        return [found[line] for line in lines]

    def _path(self, name: str) -> Path:
        if name not in self._checked:
            # Where two inputs held files of one name, the corpus names them by their folder too.
            places = [self._place / name, self._place.parent / name] if self._place.is_dir() else [self._place]
            path = next((path for path in places if path.is_file() and path.name == Path(name).name), None)
            if path is None:
                raise PrepareError(f"{places[0]} is gone: its text cannot be shown")
            expected = self._expected[name]
            if path.stat().st_size != expected["bytes"] or file_sha256(path) != expected["sha256"]:
                raise PrepareError(f"{path} has changed since the corpus was made: its text is not shown")
            self._checked[name] = path
        return self._checked[name]
