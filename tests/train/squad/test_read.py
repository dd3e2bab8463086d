from pathlib import Path
from typing import Any

import pytest

from tests.train.squad.conftest import entry, write_squad
from train.errors import TrainError
from train.squad.read import read_squad

CONTEXT = "the cat sees a dog"


def test_the_version_is_told_from_the_files(squad: dict[str, tuple[Path, Path]]) -> None:
    for version, (train, dev) in squad.items():
        data = read_squad(train, dev)
        assert data.version == version
        assert len(data.train) == len(data.validation) == 24
    assert data.rows() == {"train": 24, "validation": 24, "train_without_answer": 8, "validation_without_answer": 8}


def test_every_answer_is_where_the_file_says(squad: dict[str, tuple[Path, Path]]) -> None:
    data = read_squad(*squad["1.1"])
    for question in (*data.train, *data.validation):
        assert question.answers
        assert all(question.context[first : first + len(text)] == text for text, first in question.answers)


def test_version_1_questions_may_be_scored_as_version_2(squad: dict[str, tuple[Path, Path]]) -> None:
    assert read_squad(*squad["1.1"], "2.0").version == "2.0"
    assert read_squad(*squad["1.1"], "2.0").sha256 != read_squad(*squad["1.1"]).sha256


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no question, expected at least one"),
        ([entry("q", "?", [("dog", 3)])], "question q: its answer 'dog' is not at character 3 of the context"),
        ([entry("q", "?", [("dog", -3)])], "question q: its answer 'dog' is not at character -3"),
        ([entry("q", "?", [])], "question q: no answer, expected one in SQuAD 1.1"),
        ([entry("q", "?", [("cat", 4)]), entry("q", "?", [("cat", 4)])], "question q: its id is there twice"),
        ([{"id": "q", "answers": []}], "question q: no key 'question', expected id, question and answers"),
        ([entry("q", "?", [("cat", "x")])], "question q: id, question or answers are of the wrong type"),  # type: ignore[list-item]
        ([entry("q", "?", [("cat", 4.0)])], "question q: id, question or answers are of the wrong type"),  # type: ignore[list-item]
        ([entry("q", "?", [("t", True)])], "question q: id, question or answers are of the wrong type"),
        ([entry("q", "?", [], is_impossible=False)], "question q: no answer, though it is not marked as impossible"),
        ([entry("q", "?", [("cat", 4)], is_impossible=True)], "question q: an answer, though it is marked as imposs"),
        ([entry("q", "?", [("cat", 4)], is_impossible="false")], "question q: `is_impossible` is 'false', expected"),
        ([entry("q", "?", [], is_impossible=1)], "question q: `is_impossible` is 1, expected true or false"),
        ([entry("q", "?", [], is_impossible=None)], "question q: `is_impossible` is None, expected true or false"),
    ],
)
def test_a_bad_question_is_named_with_its_file(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    path = write_squad(tmp_path / "train.json", [(CONTEXT, rows)], "1.1")
    with pytest.raises(TrainError) as caught:
        read_squad(path, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8 text"),
        (b"[" * 100_000, "is not JSON: maximum recursion depth exceeded"),
        (b"[]", "is not in SQuAD's form"),
        (b'{"data": [{}]}', "has no key 'paragraphs'"),
        (b'{"data": [{"paragraphs": [{"context": 3, "qas": [{}]}]}]}', "is not in SQuAD's form"),
    ],
)
def test_a_file_of_another_form_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(TrainError, match=message):
        read_squad(path, path)


def test_two_versions_and_a_wrong_version_are_refused(squad: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"v2\.0\.json is SQuAD 2\.0 and .*v1\.1\.json is 1\.1"):
        read_squad(squad["1.1"][0], squad["2.0"][1])
    with pytest.raises(TrainError, match=r"is SQuAD 2\.0: its questions have `is_impossible`"):
        read_squad(*squad["2.0"], "1.1")
    with pytest.raises(TrainError, match=r"`3` is not a version of SQuAD, expected one of 1\.1, 2\.0"):
        read_squad(*squad["1.1"], "3")
    with pytest.raises(TrainError, match=r"none\.json does not exist"):
        read_squad(tmp_path / "none.json", squad["1.1"][1])
