"""The record that a command which chains others keeps in its folder: what the folder was begun with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class StudyError(ValueError):
    """A folder that holds another study, or other things."""


def recorded(out: Path, name: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a folder that was begun with this identity; None if the folder is new or empty.

    Raises StudyError, and says what differs, if it was begun with another one or holds other things.
    """
    from durable.errors import with_hint
    from durable.files import file_above
    from durable.locks import LOCK_NAME
    from durable.settings import difference

    record = out / name
    if record.is_file():
        try:
            found: dict[str, Any] = json.loads(record.read_text("utf-8"))
            begun: Mapping[str, Any] = dict(found["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise with_hint(StudyError(f"{record} is damaged: {error!r}"), "give another --out") from None
        # As JSON has it: lists for tuples.
        if changes := difference(begun, json.loads(json.dumps(identity))):
            raise with_hint(StudyError(f"{out} was begun otherwise: {'; '.join(changes)}"), "give another --out")
        return found
    strangers = [path.name for path in out.iterdir() if path.name != LOCK_NAME] if out.is_dir() else []
    if strangers:
        message = f"{out} holds other things ({strangers[0]}) and no {name}"
        raise with_hint(StudyError(message), "give --out a new folder")
    if out.exists() and not out.is_dir():
        raise with_hint(StudyError(f"{out} is a file, expected a folder"), "give --out a new folder")
    if above := file_above(out):
        raise with_hint(StudyError(f"{out} leads through {above}, which is a file"), "give --out a new folder")
    return None
