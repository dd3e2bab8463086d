"""The text of a corpus's documents, pass after pass, for what has to see all of it."""

from collections.abc import Iterator, Sequence

from durable.progress import ProgressCallback, silent
from oscar_prep.inputs import InputFile
from oscar_prep.parse import parse
from oscar_prep.read import ShardReader


class ShardTexts:
    """Call it for a pass over the content of every document, unfiltered, a block of documents at a time.

    `documents` and `bad` count the documents and the lines that are none, of the last pass. A pass raises
    PrepareError, naming the file, if one is damaged.
    """

    def __init__(self, files: Sequence[InputFile], *, passes: int = 1, progress: ProgressCallback = silent) -> None:
        self._files = files
        self._progress = progress
        self._total = passes * sum(file.path.stat().st_size for file in files)
        self._done = 0
        self.documents = self.bad = 0

    def __call__(self) -> Iterator[list[str]]:
        self.documents = self.bad = 0
        for file in self._files:
            with ShardReader(file) as reader:
                for block in reader.blocks():
                    parsed = parse(block)
                    self.documents += parsed.documents.num_rows
                    self.bad += len(parsed.bad)
                    self._progress(self._done + reader.bytes_read, self._total, {})
                    yield parsed.documents.column("content").to_pylist()
                reader.finish()
                self._done += reader.bytes_read
