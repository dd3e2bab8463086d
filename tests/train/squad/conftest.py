"""A small SQuAD in the official form, and what writes one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

COLOURS, ANIMALS = ("red", "green", "small", "old"), ("cat", "dog", "bird")


def entry(name: str, question: str, answers: Sequence[tuple[str, int]], **more: Any) -> dict[str, Any]:
    given = [{"text": text, "answer_start": first} for text, first in answers]
    return {"id": name, "question": question, "answers": given, **more}


def write_squad(path: Path, paragraphs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], version: str) -> Path:
    content = [{"context": context, "qas": list(rows)} for context, rows in paragraphs]
    path.write_text(json.dumps({"version": version, "data": [{"title": "Animals", "paragraphs": content}]}), "utf-8")
    return path


def paragraphs(version: str, offset: int = 0) -> list[tuple[str, list[dict[str, Any]]]]:
    """Which animal is seen? In version 2.0 every third paragraph does not say it."""
    made = []
    for number in range(offset, offset + 24):
        animal, colour = ANIMALS[number % 3], COLOURS[number % 4]
        says = version == "1.1" or number % 3
        context = f"{'the old man ' * (number % 5)}{'sees' if says else 'hears'} a {colour} {animal}."
        answers = [
            (f"{colour} {animal}", context.index(colour, context.index("s a ") + 4)),
            (animal, context.index(animal)),
        ]
        marks = {} if version == "1.1" else {"is_impossible": not says}
        made.append((context, [entry(f"q{number}", "sees a the man?", answers if says else [], **marks)]))
    return made


@pytest.fixture(scope="session")
def squad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Version → training and development file."""
    folder = tmp_path_factory.mktemp("squad")
    return {
        version: (
            write_squad(folder / f"train-v{version}.json", paragraphs(version), version),
            write_squad(folder / f"dev-v{version}.json", paragraphs(version, 12), version),
        )
        for version in ("1.1", "2.0")
    }
