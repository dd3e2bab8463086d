"""JSON lines → Arrow columns, and each line that is no document named with its reason.

pyarrow's reader parses a block several times as fast as json.loads, but judged by itself it takes too much
(invalid UTF-8, several objects on a line, objects over several lines, a byte order mark) and can crash on a block
that does not begin with an object (apache/arrow#47409). So every line must begin with `{` and end with `}`
before it is parsed, rows must equal lines and the text be valid UTF-8 afterwards; a block that fails is halved and
parsed again by the same parser, down to single lines, so that no line's fate depends on its neighbours.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from oscar_prep.layout import DOCUMENT, OSCAR, Layout
from oscar_prep.parquet import Rows
from oscar_prep.read import Block, LongLine

WHITE_SPACE = b" \t\r"  # JSON's, less the newline that ends a line
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
START_KEPT = 200


@dataclass(frozen=True)
class BadLine:
    """A line that is no document: it goes to quarantine, counted."""

    line: int
    reason: str
    size: int
    start: str


@dataclass
class Parsed:
    """A block's documents (schema DOCUMENT), its bad lines and the numbers of its blank lines."""

    documents: pa.RecordBatch
    bad: list[BadLine] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)


def parse(block: Block | LongLine | Rows, layout: Layout = OSCAR) -> Parsed:
    """The documents of a block. Raises nothing for what a file may hold."""
    if isinstance(block, Rows):
        return _from_rows(block, layout)
    if isinstance(block, LongLine):
        reason = "longer than the longest line that is read"
        return Parsed(_no_documents(), [BadLine(block.line, reason, block.size, _readable(block.start))])
    lines = _Lines.of(block)
    batches: list[pa.RecordBatch] = []
    _parse_halving(lines, layout, batches)
    documents = pa.Table.from_batches(batches, DOCUMENT).combine_chunks().to_batches()
    return Parsed(
        documents[0] if documents else _no_documents(),
        sorted(lines.bad, key=lambda bad: bad.line),
        lines.blank,
    )


def _from_rows(rows: Rows, layout: Layout) -> Parsed:
    """Rows of a typed file: what can be wrong is a value that is no text, or none at all."""
    count = rows.records.num_rows
    try:
        documents = layout.documents(rows.records, pa.array(rows.first_line + np.arange(count), pa.int64()))
        documents.validate(full=True)
    except pa.ArrowInvalid as error:
        if count == 1:
            return Parsed(_no_documents(), [BadLine(rows.first_line, _in_plain_words(error), 0, "")])
        halves = [(0, count // 2), (count // 2, count)]
        parts = [
            _from_rows(Rows(rows.records.slice(low, high - low), rows.first_line + low), layout) for low, high in halves
        ]
        return Parsed(
            pa.concat_batches([part.documents for part in parts]), [bad for part in parts for bad in part.bad]
        )
    present = documents.column("content").is_valid()
    missing = documents.column("line").filter(pc.invert(present)).to_pylist()
    return Parsed(documents.filter(present), [BadLine(line, f"no `{layout.content}`", 0, "") for line in missing])


@dataclass
class _Lines:
    """Lines that begin with `{` and end with `}`, as one piece of bytes with the bounds and number of each."""

    data: bytes
    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray
    bad: list[BadLine]
    blank: list[int]

    @classmethod
    def of(cls, block: Block) -> "_Lines":
        data = block.data
        characters = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(characters == ord("\n"))
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])
        numbers = block.first_line + np.arange(len(ends))
        filled = np.flatnonzero(ends > starts)
        plain = np.zeros(len(ends), bool)
        plain[filled] = (characters[starts[filled]] == ord("{")) & (characters[ends[filled] - 1] == ord("}"))
        lines = cls(data, starts, ends, numbers, [], [])
        return lines if plain.all() else lines._sorted_out(plain)

    def _sorted_out(self, plain: np.ndarray) -> "_Lines":
        """Trim white space from what is not plain, put blank and bad lines aside, join the others anew."""
        kept: list[bytes] = []
        numbers: list[int] = []
        for index in range(len(plain)):
            text, number = self.data[self.starts[index] : self.ends[index]], int(self.numbers[index])
            if not plain[index]:
                size, text = len(text), text.strip(WHITE_SPACE)
                if not text:
                    self.blank.append(number)
                    continue
                if not (text.startswith(b"{") and text.endswith(b"}")):
                    mark = "begins with a byte order mark" if text.startswith(BYTE_ORDER_MARK) else "not a JSON object"
                    self.bad.append(BadLine(number, mark, size, _readable(text)))
                    continue
            kept.append(text)
            numbers.append(number)
        ends = np.cumsum([len(text) + 1 for text in kept], dtype=np.int64) - 1
        starts = np.concatenate([[0], ends[:-1] + 1]) if kept else ends
        return _Lines(b"\n".join(kept), starts, ends, np.array(numbers, np.int64), self.bad, self.blank)

    def half(self, low: int, high: int) -> "_Lines":
        return _Lines(
            self.data,
            self.starts[low:high],
            self.ends[low:high],
            self.numbers[low:high],
            self.bad,
            self.blank,
        )


def _parse_halving(lines: _Lines, layout: Layout, batches: list[pa.RecordBatch]) -> None:
    """Append the documents of `lines` to `batches` in order, and to `lines.bad` what is none."""
    count = len(lines.numbers)
    if not count:
        return
    try:
        table = _parse_strictly(lines, layout.schema)
    except pa.ArrowInvalid as error:
        if count > 1:
            _parse_halving(lines.half(0, count // 2), layout, batches)
            _parse_halving(lines.half(count // 2, count), layout, batches)
            return
        _put_aside(lines, 0, _in_plain_words(error))
        return
    (records,) = table.combine_chunks().to_batches()
    documents = layout.documents(records, pa.array(lines.numbers, pa.int64()))
    present = documents.column("content").is_valid()
    if not pc.all(present).as_py():
        for index in np.flatnonzero(~present.to_numpy(zero_copy_only=False)).tolist():
            _put_aside(lines, index, f"no `{layout.content}`")
        documents = documents.filter(present)
    batches.append(documents)


def _parse_strictly(lines: _Lines, schema: pa.Schema) -> pa.Table:
    """Raises ArrowInvalid if the lines are not one valid record each."""
    data = memoryview(lines.data)[int(lines.starts[0]) : int(lines.ends[-1])]
    how = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    options = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
    table = pj.read_json(pa.BufferReader(pa.py_buffer(data)), read_options=options, parse_options=how)
    if table.num_rows != len(lines.numbers):
        raise pa.ArrowInvalid("more or less than one JSON object on a line")
    table.validate(full=True)
    return table


def _put_aside(lines: _Lines, index: int, reason: str) -> None:
    text = lines.data[lines.starts[index] : lines.ends[index]]
    lines.bad.append(BadLine(int(lines.numbers[index]), reason, len(text), _readable(text)))


def _in_plain_words(error: pa.ArrowInvalid) -> str:
    reason = str(error).splitlines()[0].removeprefix("JSON parse error: ")
    return re.sub(r",? in row \d+$", "", reason)


def _readable(text: bytes) -> str:
    return text[:START_KEPT].decode("utf-8", errors="replace")


def _no_documents() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], column.type) for column in DOCUMENT], schema=DOCUMENT)
