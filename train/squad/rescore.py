"""Finished cells against themselves: the scores of a cell are those of its answers to the questions at hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable.errors import with_hint
from train.errors import TrainError
from train.glue.cells import cells_by_path
from train.glue.rescore import other_score
from train.squad.read import SquadData
from train.squad.score import scores_of


def refuse_edited_cells(out: Path, data: SquadData) -> None:
    """Score the answers of every finished cell again. Raises TrainError, naming the file, at another result."""
    for path, cell in cells_by_path(out):
        if problem := _problem(cell, data):
            again = "delete it and let `symbert squad` train it again"
            raise with_hint(TrainError(f"{path} is damaged: {problem}"), again)


def _problem(cell: Mapping[str, Any], data: SquadData) -> str | None:
    try:
        found = scores_of(data.validation, cell["predictions"], data.version)
    except KeyError as error:
        return f"it has no answer to the question {error}"
    if more := sorted(cell["scores"].keys() - found.keys()):
        return f"it has a score `{more[0]}`, which its answers do not give"
    return other_score(cell, found)
