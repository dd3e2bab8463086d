"""Questions as token ids: one row a window of the paragraph, and back from tokens to characters.

Shape suffixes: W windows, L token positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from train.errors import TrainError
from train.glue.checkpoint import Subject
from train.glue.encode import Encoded
from train.glue.loading import has_token_types, load_config, load_tokenizer, usable_length
from train.squad.protocol import SquadProtocol
from train.squad.read import Question

Integers = npt.NDArray[np.int64]
SHORTEST_WINDOW = 8
"""Paragraph tokens that must fit beside the longest question."""


@dataclass(frozen=True)
class Window:
    """Where a row of tokens lies in its paragraph."""

    question: int
    characters: Integers
    """First character and the one after the last of every token; (L, 2), -1 where it is not the paragraph's."""
    has_most_context: npt.NDArray[np.bool_]
    """Whether no other window shows this token of the paragraph with more of its surroundings; (L,)."""


@dataclass(frozen=True)
class Windows:
    """All windows of some questions; the labels of `encoded` are first and last token of the answer, shape (W, 2)."""

    encoded: Encoded
    windows: tuple[Window, ...]


def cut_into_windows(questions: Sequence[Question], subject: Subject, protocol: SquadProtocol) -> Windows:
    """Tokenize questions with their paragraphs. Raises TrainError if the model has too few positions for that."""
    tokenizer, has_types = load_tokenizer(subject), has_token_types(subject)
    length = usable_length(load_config(subject), protocol.max_length)
    room = length - protocol.max_question_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < SHORTEST_WINDOW:
        raise TrainError(
            f"{subject.folder}: {length} tokens are too few for a question of {protocol.max_question_length} and a "
            f"window of its paragraph, expected {length - room + SHORTEST_WINDOW} or a smaller max_question_length"
        )
    rows: list[tuple[Integers, Integers, tuple[int, int]]] = []
    windows: list[Window] = []
    for number, question in enumerate(questions):
        found = list(_windows(question, tokenizer, length, protocol))
        most = _most_context([characters for _, _, characters in found])
        for (ids, types, characters), has_most in zip(found, most, strict=True):
            rows.append((ids, types, _answer(question, characters)))
            windows.append(Window(number, characters, has_most))
    encoded = Encoded(
        ids=np.concatenate([ids for ids, _, _ in rows]).astype(np.int32),
        types=np.concatenate([types for _, types, _ in rows]).astype(np.uint8) if has_types else None,
        offsets=np.concatenate(([0], np.cumsum([len(ids) for ids, _, _ in rows]))),
        labels=np.array([answer for _, _, answer in rows], np.int64),
        padding_id=tokenizer.pad_token_id,
    )
    return Windows(encoded, tuple(windows))


def _windows(
    question: Question, tokenizer: Any, length: int, protocol: SquadProtocol
) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Ids, sentence numbers and characters of every window."""
    asked = tokenizer(question.text, add_special_tokens=False, return_offsets_mapping=True)
    cut = asked["offset_mapping"][: protocol.max_question_length]
    text = question.text[: cut[-1][1]] if len(asked["input_ids"]) > len(cut) else question.text
    capacity = length - min(len(asked["input_ids"]), len(cut)) - tokenizer.num_special_tokens_to_add(pair=True)
    encoding = tokenizer(
        text,
        question.context,
        truncation="only_second",
        max_length=length,
        stride=max(0, capacity - protocol.doc_stride),  # here: what two windows share
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    for row, ids in enumerate(encoding["input_ids"]):
        is_paragraph = np.array([part == 1 for part in encoding.sequence_ids(row)])
        characters = np.where(is_paragraph[:, None], np.array(encoding["offset_mapping"][row], np.int64), -1)
        yield np.array(ids, np.int64), np.array(encoding["token_type_ids"][row], np.int64), characters


def _answer(question: Question, characters: Integers) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0), the place of [CLS], where the window lacks part of it."""
    if not question.answers:
        return 0, 0
    text, first = question.answers[0]
    begins = np.flatnonzero((characters[:, 0] <= first) & (characters[:, 1] > first))
    ends = np.flatnonzero((characters[:, 0] < first + len(text)) & (characters[:, 1] >= first + len(text)))
    return (int(begins[0]), int(ends[-1])) if len(begins) and len(ends) else (0, 0)


def _most_context(windows: Sequence[Integers]) -> list[npt.NDArray[np.bool_]]:
    """For each token: whether the smaller of its two surroundings is nowhere larger.

    As in BERT's code a hundredth of the window's length decides between equals, and the first window what is left.
    """
    best: dict[int, tuple[float, int]] = {}
    for number, characters in enumerate(windows):
        tokens = np.flatnonzero(characters[:, 0] >= 0)
        for place, token in enumerate(tokens):
            context = min(place, len(tokens) - place - 1) + 0.01 * len(tokens)
            first = int(characters[token, 0])
            if first not in best or context > best[first][0]:
                best[first] = context, number
    return [
        np.array([first >= 0 and best[int(first)][1] == number for first in characters[:, 0]])
        for number, characters in enumerate(windows)
    ]
