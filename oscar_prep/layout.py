"""Where a corpus keeps what the pipeline wants to know of a document: OSCAR's fields, or those of another corpus."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from durable.errors import with_hint
from oscar_prep.errors import PrepareError

CONTENT_FIELD, URL_FIELD = "content", "warc_headers.warc-target-uri"

TEXT, NUMBER, TEXTS = pa.string(), pa.float64(), pa.list_(pa.string())
# What the rest of the pipeline sees of a document beside its text.
METADATA = pa.schema([
    ("line", pa.int64()), ("record_id", TEXT), ("url", TEXT),
    ("harmful_pp", NUMBER), ("quality_warnings", TEXTS), ("categories", TEXTS),
    ("language", TEXT), ("language_probability", NUMBER),
])  # fmt: skip
# The Python type that msgspec checks a value against. A null among a list's values stays what it is.
_PYTHON = {TEXT: str, NUMBER: float, TEXTS: list[str | None]}

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
class Documents:
    """Some documents in file order: their texts, and what rules look at as columns beside them."""

    texts: list[str]
    metadata: pa.RecordBatch
    """Of schema METADATA, a row for each text."""

    def __len__(self) -> int:
        return len(self.texts)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """The bytes of each text in UTF-8."""
        return np.fromiter(map(size_of, self.texts), np.int64, len(self.texts))

    def first(self, count: int) -> "Documents":
        """The first `count` of them."""
        return Documents(self.texts[:count], self.metadata.slice(0, count))

    def take(self, rows: np.ndarray) -> "Documents":
        """Those of the given rows."""
        return Documents([self.texts[row] for row in rows.tolist()], self.metadata.take(pa.array(rows)))


def size_of(text: str) -> int:
    """The bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


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
        """For the content and each column of METADATA the fields that may hold it, in order of preference."""
        own: dict[str, tuple[str, ...]] = {"content": (self.content,), "url": (self.url,)}
        if self.content != CONTENT_FIELD:
            return own
        return own | _OSCAR | (_LANGUAGE if self.language else {})

    @functools.cached_property
    def types(self) -> dict[str, pa.DataType]:
        """The Arrow type of each field that is read."""
        return {
            path: TEXT if column == "content" else METADATA.field(column).type
            for column, paths in self.paths.items()
            for path in paths
        }

    def check(self) -> None:
        """Raises PrepareError if no record can be read: its fields contradict each other, or msgspec is missing."""
        _ = self.decode

    @functools.cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """Makes a record of a line of JSON. Raises ValueError or RecursionError if it is none, and says where."""
        return _msgspec().json.Decoder(self._record).decode

    @functools.cached_property
    def convert(self) -> Callable[[dict[str, Any]], Any]:
        """Makes a record of the values of a row. Raises ValueError if one is of another type, and says which."""
        return functools.partial(_msgspec().convert, type=self._record)

    def documents(self, records: Sequence[Any], lines: Sequence[int]) -> Documents:
        """The documents of records made by `decode` or `convert`, and of their line numbers."""
        columns: dict[str, Sequence[Any]] = {"line": lines}
        for column, paths in self.paths.items():
            values, *others = (_values(records, path) for path in paths)
            for other in others:
                values = [second if first is None else first for first, second in zip(values, other, strict=True)]
            columns[column] = values
        arrays = [
            pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(len(records), field.type)
            for field in METADATA
        ]
        return Documents(list(columns["content"]), pa.RecordBatch.from_arrays(arrays, schema=METADATA))

    @functools.cached_property
    def _record(self) -> type:
        """The struct that holds the fields that are read. Raises PrepareError if one field lies inside another."""
        if len(self.types) < sum(map(len, self.paths.values())):
            raise self._clash(self.url)
        tree: dict[str, Any] = {}
        for path, kind in self.types.items():
            *parents, name = path.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
                if not isinstance(branch, dict):
                    raise self._clash(path)
            if name in branch:
                raise self._clash(path)
            branch[name] = _PYTHON[kind]
        try:
            return self._struct(tree)
        except ValueError:
            raise with_hint(
                PrepareError(
                    f"`{self.content}` or `{self.url}` cannot be read: the name of a field may hold no quotation mark, "
                    "backslash, control character or broken UTF-8"
                ),
                "give the field another name in the records",
            ) from None

    def _struct(self, branch: dict[str, Any], above: str = "") -> type:
        """A struct of the fields of a branch. The way to the content must be there, all else may be missing or null."""
        fields: list[Any] = []
        for name, below in branch.items():
            path = above + name
            kind = self._struct(below, f"{path}.") if isinstance(below, dict) else below
            required = f"{self.content}.".startswith(f"{path}.")
            fields.append((_attribute(name), kind) if required else (_attribute(name), kind | None, None))
        names = {_attribute(name): name for name in branch}
        return _msgspec().defstruct("Record", fields, rename=names, gc=False)

    def _clash(self, path: str) -> PrepareError:
        return with_hint(
            PrepareError(f"the field `{path}` is read for two purposes, or lies inside another that is read"),
            "--content-field and --url-field name two different fields, such as text and url",
        )


OSCAR = Layout()


def _msgspec() -> Any:
    try:
        import msgspec
    except ImportError:
        raise with_hint(
            PrepareError("reading a corpus needs the package msgspec, which is not installed"),
            "pip install 'symbert[prepare]'",
        ) from None
    return msgspec


def _attribute(name: str) -> str:
    """An identifier for a field, whose own name may hold anything."""
    return f"_{name.encode(errors='surrogatepass').hex()}"


def _values(records: Sequence[Any], path: str) -> list[Any]:
    """The values of a field; None where it, or what holds it, is missing or null."""
    values = list(records)
    for name in path.split("."):
        attribute = _attribute(name)
        values = [None if value is None else getattr(value, attribute) for value in values]
    return values
