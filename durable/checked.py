"""Files that others may have touched: every field has its type before anybody computes with it.

A shape is a pydantic model of the fields that are read; what else stands in the file is of no concern. A file that does
not fit is refused by one line, `PATH is damaged: …`, with the error class of the package that reads it.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from durable.errors import DurableError, with_hint

FROM_A_COPY = "put the file back from a copy"


class Shape(BaseModel):
    """The fields that a reader needs of an object. Numbers are finite; nothing is converted, but 1 is also 1.0."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def _stays_inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("the name of a file inside the folder")
    return name


NameInside = Annotated[str, AfterValidator(_stays_inside)]
"""The name of a file below a folder. One that leads out of the folder is refused, never followed."""

Fields = TypeVar("Fields", bound=Shape)


def checked(
    shape: type[Fields], document: Any, where: object, kind: type[ValueError] = DurableError, hint: str = FROM_A_COPY
) -> Fields:
    """The fields of `document`, which came from `where`. Raises `kind`, naming the first that is not as it must be."""
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    raise damaged(where, _in_words(fault["loc"], fault["type"], fault["msg"], fault["input"]), kind, hint)


def fitting(shape: type[Fields], document: Any) -> Fields | None:
    """The fields of `document`; None if it does not fit."""
    try:
        return shape.model_validate(document)
    except ValidationError:
        return None


def read_json(path: Path, kind: type[ValueError] = DurableError, hint: str = FROM_A_COPY) -> Any:
    """A JSON document. Raises `kind` if it is none; the file must be there."""
    try:
        return json.loads(path.read_text("utf-8"))
    except IsADirectoryError:
        reason = "it is a folder, expected a JSON file"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise damaged(path, reason, kind, hint)


def damaged(where: object, reason: str, kind: type[ValueError], hint: str = FROM_A_COPY) -> ValueError:
    """The refusal to raise for a damaged file."""
    return with_hint(kind(f"{where} is damaged: {reason}"), hint)


def _in_words(place: tuple[int | str, ...], fault: str, message: str, found: Any) -> str:
    *above, last = place or ("",)
    if last == "[key]":
        return f"`{'.'.join(map(str, above[:-1]))}` names {found!r}, expected {message.removeprefix('Value error, ')}"
    key = ".".join(map(str, place))
    if fault == "missing":
        return f"`{key}` is missing"
    reason = message.removeprefix("Value error, ").removeprefix("Input should be ")
    reason = "an object" if fault in ("model_type", "dict_type") else reason
    shown = repr(found)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return f"{f'`{key}` is ' if key else ''}{shown}, expected {reason}"
