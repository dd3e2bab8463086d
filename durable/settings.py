"""Settings: a TOML file, then flags, then `--set section.key=value`; checked by a pydantic model, told in one line.

Precedence, said once for every command: --set > flag > file > default.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from durable.errors import DurableError, with_hint

NEAR_ENOUGH = 0.8
"""Of difflib's ratio, for a `did you mean`: a slip of the pen has 0.9 and more, two keys of one section up to 0.76."""

Settings = TypeVar("Settings", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises DurableError, naming file and line, if it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DurableError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise DurableError(f"{path} is a folder, expected a TOML file") from None
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise DurableError(f"{path} is not valid TOML: {error}") from None


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """`a.b=c` as (["a", "b"], c); c is TOML where it can be read as TOML, else a string."""
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise with_hint(
            DurableError(f"--set {text} is not `section.key=value`"),
            "for example --set schedule.max_steps=1000",
        )
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except ValueError:  # also of a number with thousands of digits, which Python does not read
        return keys, value.strip()


def put(document: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set `document[a][b] = value` in place, making sections on the way."""
    for depth, key in enumerate(keys[:-1], start=1):
        section = document.setdefault(key, {})
        if not isinstance(section, dict):
            raise DurableError(f"`{'.'.join(keys[:depth])}` is a value, not a section")
        document = section
    document[keys[-1]] = value


def with_assignments(document: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `document` with every `section.key=value` of `assignments` applied in order."""
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    for text in assignments:
        keys, value = parse_assignment(text)
        put(copy, keys, value)
    return copy


def validated(model: type[Settings], document: Mapping[str, Any], *, what: str) -> Settings:
    """`document` as an instance of `model`. Raises DurableError with the first fault in plain words.

    `what` names the kind of document in the message, as in "`a.b` is not a recipe key".
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _in_plain_words(model, error, what) from None


def dump_toml(settings: BaseModel) -> str:
    """A model as TOML text; keys whose value is None are left out, since TOML has no null."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as {"a.b": value}."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two documents, one line a key: `a.b: 1 → 2`. Empty if nothing does."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {_shown(before, key)} → {_shown(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a model and its sections."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from keys_of(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "absent"


def _nearest(key: str, model: type[BaseModel]) -> str | None:
    """The key or section that `key` was probably meant to be; one without a dot may lack its section alone."""
    known = {name: name for name in keys_of(model)}
    if "." not in key:
        known = {name.rpartition(".")[2]: name for name in known} | {section: section for section in model.model_fields}
    near = difflib.get_close_matches(key, known, n=1, cutoff=NEAR_ENOUGH)
    return known[near[0]] if near else None


def _in_plain_words(model: type[BaseModel], error: ValidationError, what: str) -> DurableError:
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        refusal = DurableError(f"`{key}` is not a {what} key")
        near = _nearest(key, model)
        return with_hint(refusal, f"did you mean `{near}`?") if near else refusal
    if fault["type"] == "missing":
        return DurableError(f"`{key}` is missing from the {what}")
    reason = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    reason = reason[:1].lower() + reason[1:]
    if not key:
        refusal = DurableError(f"{what}: {reason}")
    elif isinstance(fault["input"], Mapping):
        refusal = DurableError(f"[{key}]: {reason}")
    else:
        refusal = DurableError(f"`{key}` = {fault['input']!r}: {reason}")
    for note in getattr(fault.get("ctx", {}).get("error"), "__notes__", []):
        refusal.add_note(note)
    return refusal
