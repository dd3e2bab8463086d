"""The official JSON of SQuAD 1.1 (Rajpurkar et al., 2016, arXiv 1606.05250) and 2.0 (2018, arXiv 1806.03822).

Version 2.0 has questions without an answer, marked by `is_impossible`, a key that version 1.1 lacks.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.errors import with_hint
from train.errors import TrainError
from train.glue.tasks import Task

VERSIONS = ("1.1", "2.0")
SQUAD = Task(
    "squad",
    "SQuAD",
    ("question", "context"),
    "answers",
    {},
    {"exact_match": ("exact_match",), "f1": ("f1",)},
    in_average=False,
)


@dataclass(frozen=True)
class Question:
    """A question, its paragraph and the answers that people gave."""

    name: str
    """Its `id`."""
    text: str
    context: str
    answers: tuple[tuple[str, int], ...]
    """Text and first character in the context; empty where there is none."""


@dataclass(frozen=True)
class SquadData:
    """Both files, of one version."""

    version: str
    train: tuple[Question, ...]
    validation: tuple[Question, ...]

    @property
    def task(self) -> Task:
        return SQUAD

    @functools.cached_property
    def sha256(self) -> str:
        """A hash of all questions in order, and of the version."""
        digest = hashlib.sha256(f"{self.version}\n".encode())
        for split in (self.train, self.validation):
            digest.update(f"{len(split)}\n".encode())
            for question in split:
                row = (question.name, question.text, question.context, question.answers)
                digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def rows(self) -> dict[str, int]:
        """Questions of each split, and how many of them have no answer."""
        splits = {"train": self.train, "validation": self.validation}
        counts = {name: len(split) for name, split in splits.items()}
        if self.version == "2.0":
            for name, split in splits.items():
                counts[f"{name}_without_answer"] = sum(not question.answers for question in split)
        return counts


def read_squad(train: Path, validation: Path, version: str | None = None) -> SquadData:
    """Read both files; `version` None is 2.0 where a question has the key `is_impossible`.

    Raises TrainError, naming file and question, for what is missing or not in the official form.
    """
    if version is not None and version not in VERSIONS:
        raise TrainError(f"`{version}` is not a version of SQuAD, expected one of {', '.join(VERSIONS)}")
    files = {path: list(_questions(path)) for path in (train, validation)}
    marked = {path: any("is_impossible" in row for _, row in rows) for path, rows in files.items()}
    if len(set(marked.values())) > 1:
        newer, older = sorted(files, key=lambda path: not marked[path])
        raise TrainError(f"{newer} is SQuAD 2.0 and {older} is 1.1, expected two files of one version")
    found = "2.0" if marked[train] else "1.1"
    if version == "1.1" and found == "2.0":
        raise with_hint(TrainError(f"{train} is SQuAD 2.0: its questions have `is_impossible`"), "leave --version out")
    splits = [tuple(_question(row, context, path) for context, row in rows) for path, rows in files.items()]
    for path, questions in zip(files, splits, strict=True):
        _check(questions, path, version or found)
    return SquadData(version or found, splits[0], splits[-1])


def _check(questions: tuple[Question, ...], path: Path, version: str) -> None:
    if not questions:
        raise TrainError(f"{path} holds no question, expected at least one")
    names: set[str] = set()
    for question in questions:
        if question.name in names:
            raise TrainError(f"{path}, question {question.name}: its id is there twice")
        names.add(question.name)
        if not question.answers and version == "1.1":
            raise TrainError(f"{path}, question {question.name}: no answer, expected one in SQuAD 1.1")


def _questions(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every question as it stands in the file, with its paragraph."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise TrainError(f"{path} {problem}, expected a JSON file of SQuAD")
    try:
        articles = json.loads(path.read_text("utf-8"))["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for row in paragraph["qas"]:
                    yield _text(context), {**row}
    except UnicodeDecodeError as error:
        raise TrainError(f"{path} is not UTF-8 text: {error}") from None
    except (ValueError, RecursionError) as error:
        raise TrainError(f"{path} is not JSON: {error}") from None
    except KeyError as error:
        raise TrainError(f"{path} has no key {error}, expected data → paragraphs → context and qas") from None
    except TypeError:
        raise TrainError(f"{path} is not in SQuAD's form, expected data → paragraphs → context and qas") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _question(row: Mapping[str, Any], context: str, path: Path) -> Question:
    where = f"{path}, question {row.get('id')}"
    marked = row.get("is_impossible", False)
    if not isinstance(marked, bool):
        raise TrainError(f"{where}: `is_impossible` is {marked!r}, expected true or false")
    try:
        name, text = _text(row["id"]), _text(row["question"])
        given = row.get("answers", []) if marked else row["answers"]
        answers = tuple((_text(answer["text"]), _whole(answer["answer_start"])) for answer in given)
    except KeyError as error:
        raise TrainError(f"{where}: no key {error}, expected id, question and answers") from None
    except TypeError:
        raise TrainError(f"{where}: id, question or answers are of the wrong type") from None
    for answer, first in answers:
        if not answer or context[first : first + len(answer)] != answer or first < 0:
            raise TrainError(f"{where}: its answer {answer!r} is not at character {first} of the context")
    if marked and answers:
        raise TrainError(f"{where}: an answer, though it is marked as impossible")
    if not answers and row.get("is_impossible") is False:
        raise TrainError(f"{where}: no answer, though it is not marked as impossible")
    return Question(name, text, context, answers)
