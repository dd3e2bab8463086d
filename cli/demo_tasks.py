"""Two tiny tasks in the official GLUE layout, made of prose: is a sentence in order; are two sentences of one text.

Both are balanced, so that giving the same answer always scores 50 % (Matthews 0). In RTE's every second sentence
stands in as many pairs of one text as of two, so that no sentence gives its row's answer away; in CoLA's every
sentence stands as it is and with its first word swapped with another. The sentences of dev come from texts that
neither train nor the corpus holds.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cli.demo_documentation import Text
from durable.files import whole_folder

DEV_EVERY = 8  # of the texts
MIN_WORDS, MAX_WORDS = 6, 14
PAIRS_OF_A_TEXT = 12
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
ABBREVIATED = re.compile(r"\b(e\.g|i\.e|etc|vs|cf)\.$")

RTE_HEADER = ("index", "sentence1", "sentence2", "label")
Row = tuple[str, ...]
Item = TypeVar("Item")


def held_out(texts: Sequence[Text]) -> tuple[list[Text], list[Text]]:
    """The texts of the corpus and of the tasks' train, then those of the tasks' dev."""
    others = [text for number, text in enumerate(texts) if number % DEV_EVERY]
    return others, list(texts[::DEV_EVERY])


def write_tasks(
    train: Sequence[Text], dev: Sequence[Text], folder: Path, sentences: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Write `CoLA/{train,dev}.tsv` and `RTE/{train,dev}.tsv`, whole or not at all.

    `sentences` bounds how many of train and dev go into each task; of several texts that hold a sentence, the first
    has it. Returns for each task its rows in `train` and `dev`, and the `majority`: the share of dev that has its
    most frequent label.
    """
    sizes: dict[str, dict[str, float]] = {"CoLA": {}, "RTE": {}}
    seen: set[str] = set()
    with whole_folder(folder, name="demo-tasks") as partial:
        for split, texts in (("train", train), ("dev", dev)):
            by_text = [_unseen(sentences_of(text), seen) for text in texts]
            order = word_order_rows(by_text, sentences[split])
            pairs = same_text_rows(by_text, sentences[split] // 2)
            for task, header, rows, label in (("CoLA", [], order, 1), ("RTE", [RTE_HEADER], pairs, 3)):
                _write(partial / task / f"{split}.tsv", [*header, *rows])
                sizes[task][split] = len(rows)
                sizes[task]["majority"] = max(Counter(row[label] for row in rows).values()) / len(rows)
    return sizes


def sentences_of(text: Text) -> list[str]:
    """The whole sentences of a text that are neither very short nor very long, each once."""
    pieces = (piece for paragraph in text.paragraphs for piece in SENTENCE_END.split(paragraph))
    return list(dict.fromkeys(piece for piece in pieces if _is_sentence(piece)))


def word_order_rows(by_text: Sequence[Sequence[str]], limit: int) -> list[Row]:
    """CoLA's columns: source, 1 or 0, `*` where 0, the sentence; each sentence as it is and with two words swapped."""
    chosen = _shuffled("CoLA", [sentence for found in by_text for sentence in found])[:limit]
    rows = [("pydoc", "1", "", sentence) for sentence in chosen]
    rows += [("pydoc", "0", "*", swap_two_words(sentence)) for sentence in chosen]
    return _shuffled("CoLA", rows)


def same_text_rows(by_text: Sequence[Sequence[str]], limit: int) -> list[Row]:
    """RTE's columns: a sentence with the next one of its text (entailment), and with one of another text."""
    pairs = [
        (number, *pair)
        for number, found in enumerate(by_text)
        for pair in list(zip(found[::2], found[1::2], strict=False))[:PAIRS_OF_A_TEXT]
    ]
    pairs = sorted(_shuffled("RTE", pairs)[:limit])
    # In the order of the texts, a pair half the list away is of another text unless one text holds half of them.
    half = len(pairs) // 2
    rows: list[Row] = [(first, second, "entailment") for _, first, second in pairs]
    for (number, first, _), (other, _, second) in zip(pairs, pairs[half:] + pairs[:half], strict=True):
        if number != other:
            rows.append((first, second, "not_entailment"))
    return [(str(index), *row) for index, row in enumerate(_shuffled("RTE", rows))]


def swap_two_words(sentence: str) -> str:
    """The sentence with its first word and a different one swapped; the last, which carries the stop, stays."""
    words = sentence.split(" ")
    other = random.Random(sentence).choice(
        [i for i in range(1, len(words) - 1) if words[i].lower() != words[0].lower()]
    )
    words[0], words[other] = words[other], words[0]
    return " ".join(words)


def _unseen(sentences: Sequence[str], seen: set[str]) -> list[str]:
    """Those that no earlier text holds; they count as seen from now on."""
    new = [sentence for sentence in sentences if sentence not in seen]
    seen.update(new)
    return new


def _is_sentence(text: str) -> bool:
    words = text.split(" ")
    return (
        MIN_WORDS <= len(words) <= MAX_WORDS
        and text[0].isupper()
        and text[-1] in ".!?"
        and not ABBREVIATED.search(text)
        and text.count("(") == text.count(")")
        and len({word.lower() for word in words[:-1]}) > 1
    )


def _shuffled(seed: str, items: Sequence[Item]) -> list[Item]:
    return random.Random(seed).sample(items, len(items))


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
