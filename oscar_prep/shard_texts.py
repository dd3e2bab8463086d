"""The text of a corpus's documents, pass after pass, for what has to see all of it."""

from collections.abc import Iterator, Sequence

from durable.errors import with_hint
from durable.progress import ProgressCallback, silent
from oscar_prep.damage import input_size
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.layout import OSCAR, Layout
from oscar_prep.parse import BadLine, parse
from oscar_prep.unit import reader_of


class ShardTexts:
    """Call it for a pass over the content of every document, unfiltered, a block of documents at a time.

    `documents` and `bad` count the documents and the lines that are none, of the last pass. A pass raises
    PrepareError, naming the file, if one is damaged, or if no line of any is a document.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        layout: Layout = OSCAR,
        *,
        passes: int = 1,
        progress: ProgressCallback = silent,
    ) -> None:
        self._files = files
        self._layout = layout
        self._progress = progress
        self._total = passes * sum(input_size(file.path) for file in files)
        self._done = 0
        self.documents = self.bad = 0

    def __call__(self) -> Iterator[list[str]]:
        self.documents = self.bad = 0
        first: tuple[InputFile, BadLine] | None = None
        for file in self._files:
            with reader_of(file, self._layout) as reader:
                for block in reader.blocks():
                    parsed = parse(block, self._layout)
                    self.documents += len(parsed.documents)
                    self.bad += len(parsed.bad)
                    first = first or ((file, parsed.bad[0]) if parsed.bad else None)
                    self._progress(self._done + reader.bytes_read, self._total, {})
                    yield parsed.documents.texts
                reader.finish()
                self._done += reader.bytes_read
        if first and not self.documents:
            raise _no_document(self.bad, *first)


def _no_document(count: int, file: InputFile, line: BadLine) -> PrepareError:
    return with_hint(
        PrepareError(
            f"none of {count:,} lines is a document; the first is {file.name} line {line.line}: {line.reason}"
        ),
        f"--content-field names the text where it is not `content`; the line begins {line.start[:80]!r}",
    )
