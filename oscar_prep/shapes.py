"""The shape of a unit's record and of a manifest, which others may have touched since they were written."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from durable.checked import NameInside, Shape, checked
from durable.remote import Place
from oscar_prep.errors import PrepareError

MANIFEST_AGAIN = "put it back from a copy; or delete it, and the command that made the corpus writes it again"
"""What to do about a damaged manifest."""
UNIT_AGAIN = "delete it, and the same command again makes it anew from its input"
"""What to do about a damaged file of a unit."""


class _Whole(Shape):
    """Nothing but its fields."""

    model_config = ConfigDict(extra="forbid")


class _File(_Whole):
    file: NameInside
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str


class _TrainShard(_File):
    file: NameInside = Field(pattern="^train/")


class _ValidationShard(_File):
    file: NameInside = Field(pattern="^validation/")


class _Input(Shape):
    bytes: int
    sha256: str


class _Budget(_Whole):
    documents: int | None
    tokens: int | None


class _Ledger(_Whole):
    lines: int
    blank: int
    documents: int
    kept: int
    invalid: int
    dropped: dict[str, int]
    alone: dict[str, int]
    overlaps: dict[str, int]
    notes: dict[str, int]
    bytes: dict[str, int]
    tokens: int
    samples: dict[str, int]
    tail: int


class _Unit(_Whole):
    file: NameInside
    input: _Input
    budget: _Budget | None
    train: _TrainShard
    validation: _ValidationShard | None
    documents: _File
    quarantine: _File | None
    ledger: _Ledger


class _Configuration(Shape):
    """What `inspect` and `thresholds` read."""

    harmful_pp: list[float] = Field(min_length=2, max_length=2)
    missing_harmful_pp: str
    drop_categories: list[str]
    drop_warnings: str | list[str]
    language: str | None
    min_language_probability: float
    content_field: str
    url_field: str


class _Tokenizer(Shape):
    sha256: str
    files: dict[NameInside, str] | None = None
    """A manifest that an older symbert wrote has none."""


class _Split(Shape):
    rows: int = Field(ge=0)
    dtype: Literal["uint16", "int32"]
    shards: list[_File]


class _Splits(_Whole):
    train: _Split
    validation: _Split | None = None


class _Manifest(Shape):
    corpus_hash: str
    sequence_length: int = Field(gt=0)
    configuration: _Configuration
    tokenizer: _Tokenizer
    splits: _Splits
    ledger: _Ledger
    units: list[_Unit]


def check_unit(record: Any, path: Place) -> None:
    """Raises PrepareError if the record at `path` does not hold what UnitRecord.from_json takes."""
    checked(_Unit, record, path, PrepareError, UNIT_AGAIN)


def check_manifest(manifest: Any, path: Place) -> None:
    """Raises PrepareError if the manifest at `path` does not hold what `verify` and `inspect` read."""
    checked(_Manifest, manifest, path, PrepareError, MANIFEST_AGAIN)
