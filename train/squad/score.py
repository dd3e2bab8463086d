"""Exact match and F1 by the rules of SQuAD's official evaluation, versions 1.1 and 2.0.

Answers are compared after normalisation: lower case, without ASCII punctuation, without the articles a, an and the,
white space single. F1 counts words that both have. Of several answers the best counts. In version 2.0 a question
without an answer is right iff the prediction is empty; where an answer is nothing but articles and punctuation it
does not count as one. The official threshold on the probability of no answer stays at its default, at which
predictions are taken as they are.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from train.squad.read import Question

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """What is compared."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where both are the same after normalisation, else 0."""
    return float(normalized(prediction) == normalized(answer))


def f1(prediction: str, answer: str, version: str = "2.0") -> float:
    """Harmonic mean of precision and recall over words; 0 where one side has none.

    Where neither has any it is 1 in version 2.0, but 0 in 1.1.
    """
    found, wanted = normalized(prediction).split(), normalized(answer).split()
    if version == "2.0" and not found and not wanted:
        return 1.0
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted)) if same else 0.0


def scores_of(questions: Sequence[Question], predictions: Mapping[str, str], version: str) -> dict[str, float]:
    """Exact match and F1 as shares of 1; in version 2.0 also of the questions with and without an answer apart.

    A side that has no question is left out.
    """
    scored = {question.name: _scores(question, predictions[question.name], version) for question in questions}
    scores = _means("", scored.values())
    if version == "2.0":
        for prefix, has_answer in (("has_answer_", True), ("no_answer_", False)):
            part = [scored[question.name] for question in questions if bool(question.answers) is has_answer]
            scores |= _means(prefix, part)
    return scores


def _scores(question: Question, prediction: str, version: str) -> tuple[float, float]:
    answers = [text for text, _ in question.answers]
    if version == "2.0":
        answers = [text for text in answers if normalized(text)] or [""]
    matches = [exact_match(prediction, text) for text in answers]
    return max(matches), max(f1(prediction, text, version) for text in answers)


def _means(prefix: str, scored: Iterable[tuple[float, float]]) -> dict[str, float]:
    columns = list(zip(*scored, strict=True))
    names = ("exact_match", "f1")
    return {f"{prefix}{name}": sum(column) / len(column) for name, column in zip(names, columns, strict=False)}
