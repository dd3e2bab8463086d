"""Lines and rows → documents, and each that is no document named with its reason.

Every line is decoded by itself into the few fields that are read, and strictly: what is not one JSON object of UTF-8
with values of the right types is no document. Fields that are not read need only be JSON.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oscar_prep.layout import OSCAR, Documents, Layout
from oscar_prep.parquet import Rows
from oscar_prep.read import LONGEST_LINE, START_KEPT, Block, LongLine

WHITE_SPACE = b" \t\r"  # JSON's, less the newline that ends a line
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TOO_LONG = "longer than the longest line that is read"


@dataclass(frozen=True)
class BadLine:
    """A line that is no document: it goes to quarantine, counted."""

    line: int
    reason: str
    size: int
    start: str


@dataclass
class Parsed:
    """A block's documents, its bad lines and the numbers of its blank lines."""

    documents: Documents
    bad: list[BadLine] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)


def parse(block: Block | LongLine | Rows, layout: Layout = OSCAR) -> Parsed:
    """The documents of a block. Raises nothing for what a file may hold."""
    if isinstance(block, Rows):
        return _from_rows(block, layout)
    if isinstance(block, LongLine):
        return Parsed(layout.documents([], []), [BadLine(block.line, TOO_LONG, block.size, _readable(block.start))])
    lines = block.lines
    if block.first_line == 1 and lines[0].startswith(BYTE_ORDER_MARK):
        lines = [lines[0].removeprefix(BYTE_ORDER_MARK), *lines[1:]]
    records, numbers, errors = _decoded(lines, block.first_line, layout.decode)
    blank = [number for number in errors if not lines[number - block.first_line].strip(WHITE_SPACE)]
    for number in blank:
        del errors[number]
    bad = []
    for number, reason in errors.items():
        line = lines[number - block.first_line]
        bad.append(BadLine(number, reason, len(line), _readable(line)))
    return Parsed(layout.documents(records, numbers), bad, blank)


def _from_rows(rows: Rows, layout: Layout) -> Parsed:
    """Rows of a typed file: what can be wrong is a text that is none, too long or missing."""

    def convert_one(index: int) -> Any:
        (row,) = rows.records.slice(index, 1).to_pylist()
        return layout.convert(row)

    try:
        records, numbers, errors = _decoded(rows.records.to_pylist(), rows.first_line, layout.convert)
    except ValueError:  # one of the values is not UTF-8
        records, numbers, errors = _decoded(range(rows.records.num_rows), rows.first_line, convert_one)
    documents = layout.documents(records, numbers)
    bad = [BadLine(number, reason, 0, "") for number, reason in errors.items()]
    is_long = documents.sizes > LONGEST_LINE
    for row in np.flatnonzero(is_long).tolist():
        bad.append(BadLine(numbers[row], TOO_LONG, int(documents.sizes[row]), documents.texts[row][:START_KEPT]))
    if is_long.any():
        documents = documents.take(np.flatnonzero(~is_long))
    return Parsed(documents, sorted(bad, key=lambda line: line.line))


def _decoded(
    values: Iterable[Any], first: int, decode: Callable[[Any], Any]
) -> tuple[list[Any], list[int], dict[int, str]]:
    """Records and their numbers, counted from `first`, and the reason of every value that is none, by its number."""
    records: list[Any] = []
    numbers: list[int] = []
    errors: dict[int, str] = {}
    for number, value in enumerate(values, first):
        try:
            records.append(_decoded_alike(value, decode))
            numbers.append(number)
        except UnicodeDecodeError as error:
            errors[number] = f"invalid UTF-8: {error.reason}"
        except ValueError as error:
            errors[number] = str(error)
        except RecursionError:
            errors[number] = "nested too deeply"
    return records, numbers, errors


def _decoded_alike(value: Any, decode: Callable[[Any], Any]) -> Any:
    """The record of a value, whoever calls: how deep it may be nested depends on the room that callers leave.

    What one caller leaves too little room for is decoded in a thread, whose stack begins anew.
    """
    try:
        return decode(value)
    except RecursionError:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(decode, value).result()


def _readable(text: bytes) -> str:
    return text[:START_KEPT].decode("utf-8", errors="replace")
