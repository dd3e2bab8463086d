"""quarantine/*.jsonl: every line that is no document, with its file, number, reason, size and start."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from durable.files import whole_file
from oscar_prep.parse import BadLine
from oscar_prep.shards import FileRecord, file_record


class QuarantineWriter:
    """Writes bad lines as they come; there is a file, and a `record`, only if there were any."""

    def __init__(self, corpus: Path, name: str, input_name: str) -> None:
        self._corpus = corpus
        self._name = name
        self._input_name = input_name
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        self._rows = 0
        self.record: FileRecord | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._file is not None and error is None:
            self.record = file_record(self._corpus / self._name, self._name, self._rows)

    def add(self, bad: Sequence[BadLine]) -> None:
        """Append bad lines."""
        if bad and self._file is None:
            self._file = self._stack.enter_context(whole_file(self._corpus / self._name, name="quarantine"))
        for line in bad:
            assert self._file is not None
            row = {"file": self._input_name, **vars(line)}
            self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._rows += len(bad)
