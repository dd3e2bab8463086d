"""The first records of an input: whether they hold a text at all, before all files are read to find that none does."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from durable.errors import with_hint
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.layout import Layout
from oscar_prep.parquet import SUFFIX
from oscar_prep.parse import parse
from oscar_prep.read import Block, ShardReader

MOST_FILES = 8
MOST_RECORDS = 1000
MOST_BYTES = 1 << 20
MOST_FIELDS = 12


def check_first_records(files: Sequence[InputFile], layout: Layout) -> None:
    """Look at the start of up to MOST_FILES files of JSON lines, evenly spaced; Parquet names its columns itself.

    Raises PrepareError, naming the fields that hold text, if there are JSON objects among the lines and none is a
    document. Files that cannot be read, and lines that are no objects, are the run's to judge.
    """
    lines = [file for file in files if file.path.suffix != SUFFIX]
    if len(lines) < len(files):
        return
    count, bad = 0, None
    for file in lines[:: -(-len(lines) // MOST_FILES) or 1]:
        for block in _start_of(file):
            parsed = parse(block, layout)
            if len(parsed.documents):
                return
            for line in parsed.bad:
                record = _object(block.lines[line.line - block.first_line])
                if record is not None:
                    bad = bad or (file, line, record)
                    count += 1
    if bad is None:
        return
    file, line, record = bad
    texts = list(_texts(record))
    found = f"; text is in {', '.join(texts[:MOST_FIELDS])}" if texts else ""
    raise with_hint(
        PrepareError(
            f"none of the first {count:,} records is a document; the first is {file.name} line {line.line}: "
            f"{line.reason}"
        ),
        f"--content-field and --url-field name the fields to read{found}",
    )


def _start_of(file: InputFile) -> Iterator[Block]:
    """The first lines of a file, as far as they are whole and it can be read."""
    records = size = 0
    try:
        with ShardReader(file, block_bytes=MOST_BYTES // 16) as reader:
            for block in reader.blocks():
                if not isinstance(block, Block):
                    return
                lines = block.lines[: MOST_RECORDS - records]
                yield Block(lines, block.first_line)
                records += len(lines)
                size += sum(map(len, lines))
                if records == MOST_RECORDS or size >= MOST_BYTES:
                    return
    except PrepareError:
        return


def _object(line: bytes) -> dict[str, Any] | None:
    import msgspec

    try:
        record = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _texts(record: dict[str, Any], above: str = "") -> Iterator[str]:
    """The fields of a record that hold text, those of objects below it last."""
    below: list[Iterator[str]] = []
    for name, value in record.items():
        if isinstance(value, str):
            yield f"`{above}{name}`"
        elif isinstance(value, dict):
            below.append(_texts(value, f"{above}{name}."))
    yield from chain(*below)
