from pathlib import Path

import numpy as np
import pytest

from tests.train.glue.conftest import CheckpointFactory, checkpoint  # noqa: F401 - fixture
from train.errors import TrainError
from train.glue.checkpoint import Subject, find_subject
from train.glue.loading import load_tokenizer
from train.squad.finetune import answers_of, best_span
from train.squad.protocol import SquadProtocol
from train.squad.read import Question
from train.squad.windows import Windows, cut_into_windows

PROTOCOL = SquadProtocol(max_length=16, doc_stride=4, max_question_length=3)
CONTEXT = "the old man sees a red cat hears the small green dog a bird likes"


@pytest.fixture
def subject(checkpoint: CheckpointFactory) -> Subject:  # noqa: F811
    return find_subject(checkpoint(), print)


def cut(subject: Subject, *answers: tuple[str, int], text: str = "man sees") -> tuple[Question, Windows]:
    question = Question("q", text, CONTEXT, answers)
    return question, cut_into_windows([question], subject, PROTOCOL)


def shown(subject: Subject, windows: Windows, row: int) -> str:
    encoded = windows.encoded
    ids = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
    return " ".join(load_tokenizer(subject).convert_ids_to_tokens(ids))


def test_windows_begin_a_stride_apart_and_end_with_the_paragraph(subject: Subject) -> None:
    _, windows = cut(subject, ("red cat", CONTEXT.index("red cat")))
    words = CONTEXT.split()
    capacity = 16 - 2 - 3
    expected = []
    for start in range(0, len(words), 4):
        expected.append(f"[CLS] man sees [SEP] {' '.join(words[start : start + capacity])} [SEP]")
        if start + capacity >= len(words):
            break
    assert [shown(subject, windows, row) for row in range(len(windows.windows))] == expected
    assert len(expected) > 1
    types = windows.encoded.types
    assert types is not None
    assert types[:16].tolist() == [0] * 4 + [1] * 12


def test_a_long_question_is_cut(subject: Subject) -> None:
    _, windows = cut(subject, text="the man sees a red cat")
    assert shown(subject, windows, 0).startswith("[CLS] the man sees [SEP] the old")


def test_the_label_is_the_answers_tokens_or_the_first_where_part_of_it_is_missing(subject: Subject) -> None:
    question, windows = cut(subject, ("a bird", CONTEXT.index("a bird")))
    inside = 0
    for window, (first, last) in zip(windows.windows, windows.encoded.labels, strict=True):
        if (first, last) != (0, 0):
            characters = window.characters[first, 0], window.characters[last, 1]
            assert question.context[slice(*characters)] == "a bird"
            inside += 1
    assert 0 < inside < len(windows.windows)
    assert not cut(subject)[1].encoded.labels.any()  # no answer: every window says so


def test_every_token_has_most_context_in_one_window(subject: Subject) -> None:
    _, windows = cut(subject)
    firsts = np.concatenate([window.characters[window.has_most_context, 0] for window in windows.windows])
    assert sorted(firsts.tolist()) == [CONTEXT.index(word, at) for word, at in starts()]


def starts() -> list[tuple[str, int]]:
    places, at = [], 0
    for word in CONTEXT.split():
        places.append((word, CONTEXT.index(word, at)))
        at = places[-1][1] + len(word)
    return places


def test_the_best_span_lies_in_the_paragraph_forwards_and_not_too_long(subject: Subject) -> None:
    _, windows = cut(subject)
    window = windows.windows[0]
    logits = np.zeros((16, 2), np.float32)
    logits[1] = 9.0  # of the question: no answer
    logits[8, 0], logits[6, 1], logits[9, 1] = 5.0, 6.0, 4.0  # an end before its start
    assert best_span(window, logits, PROTOCOL) == (9.0, *window.characters[[8, 9], [0, 1]])
    short = PROTOCOL.model_copy(update={"max_answer_length": 1})
    assert best_span(window, logits, short) == (6.0, *window.characters[[6, 6], [0, 1]])


def test_no_answer_is_given_where_it_scores_higher_than_every_span(subject: Subject) -> None:
    question, windows = cut(subject)
    logits = [np.zeros((len(window.characters), 2), np.float32) for window in windows.windows]
    logits[0][6] = 3.0
    for window in logits:
        window[0] = 3.5
    logits[1][0] = 2.9  # the least of the windows counts: 5.8 against 6
    answers = {"q": CONTEXT[slice(*windows.windows[0].characters[6])]}
    assert answers_of([question], windows.windows, logits, PROTOCOL, may_be_empty=True) == answers
    logits[1][0] = 3.1
    assert answers_of([question], windows.windows, logits, PROTOCOL, may_be_empty=True) == {"q": ""}
    assert answers_of([question], windows.windows, logits, PROTOCOL, may_be_empty=False) == answers
    lenient = PROTOCOL.model_copy(update={"null_threshold": 0.5})
    assert answers_of([question], windows.windows, logits, lenient, may_be_empty=True) == answers


def test_a_model_with_too_few_positions_is_refused(checkpoint: CheckpointFactory, tmp_path: Path) -> None:  # noqa: F811
    del tmp_path
    with pytest.raises(TrainError, match="32 tokens are too few for a question of 64"):
        cut_into_windows([Question("q", "?", CONTEXT, ())], find_subject(checkpoint(), print), SquadProtocol())
