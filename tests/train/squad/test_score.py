import pytest

from train.squad.read import Question
from train.squad.score import exact_match, f1, normalized, scores_of


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Cat!", "cat"),
        ("  an   old\tman ", "old man"),
        ("theatre of the absurd", "theatre of absurd"),
        ("U.S.-born", "usborn"),
        ("a", ""),
        ("10,000 m²", "10000 m²"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation goes
    ],
)
def test_answers_are_compared_in_lower_case_without_punctuation_and_articles(answer: str, expected: str) -> None:
    assert normalized(answer) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "match", "harmonic"),
    [
        ("the cat", "Cat.", 1, 1),
        ("a red cat", "cat", 0, 2 / 3),  # precision 1/2, recall 1
        ("cat cat", "cat", 0, 2 / 3),  # a word counts as often as both have it
        ("red cat sees", "cat sees dog bird", 0, 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("", "", 1, 1),
    ],
)
def test_exact_match_and_f1_are_those_computed_by_hand(
    prediction: str, answer: str, match: float, harmonic: float
) -> None:
    assert exact_match(prediction, answer) == match
    assert f1(prediction, answer) == pytest.approx(harmonic)


def question(name: str, *answers: str) -> Question:
    return Question(name, "?", "", tuple((answer, 0) for answer in answers))


def test_the_best_of_several_answers_counts() -> None:
    scores = scores_of([question("q", "a red cat", "cat", "dog")], {"q": "The cat"}, "1.1")
    assert scores == {"exact_match": 1.0, "f1": 1.0}


def test_version_2_scores_questions_with_and_without_an_answer_apart() -> None:
    questions = [question("a", "red cat"), question("b", "dog"), question("c"), question("d")]
    predictions = {"a": "cat", "b": "", "c": "", "d": "bird"}
    scores = scores_of(questions, predictions, "2.0")
    assert scores == pytest.approx(
        {
            "exact_match": 1 / 4,
            "f1": (2 / 3 + 1) / 4,
            "has_answer_exact_match": 0,
            "has_answer_f1": (2 / 3) / 2,
            "no_answer_exact_match": 1 / 2,
            "no_answer_f1": 1 / 2,
        }
    )


def test_an_answer_of_articles_alone_counts_in_each_version_as_its_script_says() -> None:
    empty = [question("q", "The")]
    assert scores_of(empty, {"q": "a"}, "1.1") == {"exact_match": 1.0, "f1": 0.0}
    assert scores_of(empty, {"q": "a"}, "2.0")["f1"] == 1.0


def test_a_side_without_questions_is_left_out() -> None:
    assert scores_of([question("q", "cat")], {"q": "cat"}, "2.0").keys() == {
        "exact_match", "f1", "has_answer_exact_match", "has_answer_f1",
    }  # fmt: skip
