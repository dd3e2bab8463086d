"""Where a corpus keeps what the pipeline wants to know of a document: OSCAR's fields, or those of another corpus."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from durable.errors import with_hint
from oscar_prep.errors import PrepareError

CONTENT_FIELD, URL_FIELD = "content", "warc_headers.warc-target-uri"

# What the rest of the pipeline sees of a document.
DOCUMENT = pa.schema([
    ("line", pa.int64()), ("record_id", pa.string()), ("url", pa.string()), ("content", pa.string()),
    ("harmful_pp", pa.float64()), ("quality_warnings", pa.list_(pa.string())), ("categories", pa.list_(pa.string())),
    ("language", pa.string()), ("language_probability", pa.float64()),
])  # fmt: skip

# OSCAR 23.01, and 22.01, which calls the warnings `annotation` and has neither harmful_pp nor categories.
_OSCAR = {
    "record_id": ("warc_headers.warc-record-id",),
    "harmful_pp": ("metadata.harmful_pp",),
    "quality_warnings": ("metadata.quality_warnings", "metadata.annotation"),
    "categories": ("metadata.categories",),
}
_LANGUAGE = {
    "language": ("metadata.identification.label",),
    "language_probability": ("metadata.identification.prob",),
}


@dataclass(frozen=True)
class Layout:
    """The fields of a record; dots lead into objects.

    A corpus with another `content` field than OSCAR's is another corpus: of it only content and URL are read, since
    what it calls `metadata` may be anything.
    """

    content: str = CONTENT_FIELD
    url: str = URL_FIELD
    language: bool = False
    """Whether the records' own language identification is read."""

    @functools.cached_property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """For each column of DOCUMENT the fields that may hold it, in order of preference."""
        own: dict[str, tuple[str, ...]] = {"content": (self.content,), "url": (self.url,)}
        if self.content != CONTENT_FIELD:
            return own
        return own | _OSCAR | (_LANGUAGE if self.language else {})

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """The record, as far as it is read. Raises PrepareError if one field lies inside another."""
        tree: dict[str, Any] = {}
        for column, path in self._leaves():
            *parents, name = path.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
                if not isinstance(branch, dict):
                    raise self._clash(path)
            if name in branch:
                raise self._clash(path)
            branch[name] = DOCUMENT.field(column).type
        return pa.schema([(name, _as_type(branch)) for name, branch in tree.items()])

    def present(self, schema: pa.Schema) -> set[str]:
        """The columns of DOCUMENT that records of a schema may hold."""
        empty = pa.RecordBatch.from_pylist([], schema)
        return {name for name, paths in self.paths.items() if any(_field(empty, path) is not None for path in paths)}

    def documents(self, records: pa.RecordBatch, lines: pa.Array) -> pa.RecordBatch:
        """The columns of DOCUMENT from records of `schema`, or of a schema that lacks some of its fields."""
        columns = {"line": lines}
        for column, paths in self.paths.items():
            found = [value for value in (_field(records, path) for path in paths) if value is not None]
            if found:
                wanted = DOCUMENT.field(column).type
                found = [value if value.type == wanted else value.cast(wanted) for value in found]
                columns[column] = pc.coalesce(*found) if len(found) > 1 else found[0]
        missing = {field.name: pa.nulls(records.num_rows, field.type) for field in DOCUMENT}
        return pa.RecordBatch.from_arrays(list((missing | columns).values()), schema=DOCUMENT)

    def _leaves(self) -> Iterator[tuple[str, str]]:
        for column, paths in self.paths.items():
            for path in paths:
                yield column, path

    def _clash(self, path: str) -> PrepareError:
        return with_hint(
            PrepareError(f"the field `{path}` is read for two purposes, or lies inside another that is read"),
            "--content-field and --url-field name two different fields, such as text and url",
        )


OSCAR = Layout()


def _as_type(branch: Any) -> pa.DataType:
    if isinstance(branch, dict):
        return pa.struct([(name, _as_type(value)) for name, value in branch.items()])
    return branch


def _field(records: pa.RecordBatch, path: str) -> pa.Array | None:
    first, *rest = path.split(".")
    if first not in records.schema.names:
        return None
    column = records.column(first)
    for name in rest:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
            return None
        column = pc.struct_field(column, name)
    return column
