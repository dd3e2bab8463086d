from collections import Counter
from pathlib import Path

import pytest

from cli.demo_documentation import Text
from cli.demo_tasks import held_out, sentences_of, swap_two_words, write_tasks
from train.glue.read import read_task
from train.glue.tasks import TASKS

# Reading the standard library's documentation takes five seconds.
pytestmark = pytest.mark.slow

SENTENCES = {"train": 200, "dev": 60}


@pytest.fixture(scope="module")
def texts(library: list[Text]) -> tuple[list[Text], list[Text]]:
    return held_out(library)


@pytest.fixture(scope="module")
def folder(texts: tuple[list[Text], list[Text]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "glue"
    write_tasks(*texts, folder, SENTENCES)
    return folder


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def source(texts: tuple[list[Text], list[Text]]) -> dict[str, dict[str, set[str]]]:
    """For each split, every sentence and the modules that hold it."""
    found: dict[str, dict[str, set[str]]] = {"train": {}, "dev": {}}
    for split, part in zip(found, texts, strict=True):
        for text in part:
            for sentence in sentences_of(text):
                found[split].setdefault(sentence, set()).add(text.module)
    return found


def test_train_and_dev_come_from_different_texts(texts: tuple[list[Text], list[Text]]) -> None:
    train, dev = texts
    assert not {text.module for text in train} & {text.module for text in dev}
    assert len(train) > 5 * len(dev) > 100


@pytest.mark.parametrize("split", ["train", "dev"])
def test_every_sentence_of_cola_stands_there_whole_and_swapped(
    folder: Path, split: str, source: dict[str, dict[str, set[str]]]
) -> None:
    rows = rows_of(folder / "CoLA" / f"{split}.tsv")
    assert Counter(row[1] for row in rows) == {"1": SENTENCES[split], "0": SENTENCES[split]}
    assert {(row[1], row[2]) for row in rows} == {("1", ""), ("0", "*")}
    whole = [row[3] for row in rows if row[1] == "1"]
    assert set(whole) <= source[split].keys()
    assert len(set(whole)) == len(whole)
    swapped = [row[3] for row in rows if row[1] == "0"]
    assert sorted(sorted(sentence.split()) for sentence in whole) == sorted(
        sorted(sentence.split()) for sentence in swapped
    )
    assert not set(whole) & set(swapped)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rte_tells_pairs_of_one_text_from_pairs_of_two(
    folder: Path, split: str, source: dict[str, dict[str, set[str]]]
) -> None:
    header, *rows = rows_of(folder / "RTE" / f"{split}.tsv")
    assert header == ["index", "sentence1", "sentence2", "label"]
    modules = source[split]
    assert len(rows) > 50
    for _, first, second, label in rows:
        assert bool(modules[first] & modules[second]) == (label == "entailment")
    by_label = Counter(row[3] for row in rows)
    assert by_label["entailment"] == by_label["not_entailment"]


def test_no_sentence_of_train_occurs_in_dev(folder: Path) -> None:
    for task, columns in (("CoLA", [3]), ("RTE", [1, 2])):
        train, dev = (rows_of(folder / task / f"{split}.tsv")[1:] for split in ("train", "dev"))
        assert not {row[i] for row in train for i in columns} & {row[i] for row in dev for i in columns}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_no_single_sentence_gives_the_label_of_rte_away(folder: Path, split: str) -> None:
    _, *rows = rows_of(folder / "RTE" / f"{split}.tsv")
    for column in (1, 2):
        sides = {label: Counter(row[column] for row in rows if row[3] == label) for label in {row[3] for row in rows}}
        assert sides["entailment"] == sides["not_entailment"]


def test_the_same_texts_give_the_same_tasks(folder: Path, texts: tuple[list[Text], list[Text]], tmp_path: Path) -> None:
    write_tasks(*texts, tmp_path / "again", SENTENCES)
    for path in folder.rglob("*.tsv"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes()


@pytest.mark.parametrize("task", ["cola", "rte"])
def test_the_reader_of_the_official_files_takes_them(folder: Path, task: str) -> None:
    data = read_task(TASKS[task], folder)
    assert data.rows()["train"] >= 200


def test_the_majority_is_told(texts: tuple[list[Text], list[Text]], tmp_path: Path) -> None:
    sizes = write_tasks(*texts, tmp_path / "glue", SENTENCES)
    assert sizes["CoLA"] == {"train": 400, "dev": 120, "majority": 0.5}
    assert sizes["RTE"]["majority"] == 0.5


def test_a_swap_moves_the_first_word_and_leaves_the_last() -> None:
    sentence = "One the same the other word."
    swapped = swap_two_words(sentence).split()
    assert swapped[0] != "One"
    assert swapped[-1] == "word."
    assert sum(before != after for before, after in zip(sentence.split(), swapped, strict=True)) == 2


def test_only_whole_sentences_of_a_fair_length_are_taken() -> None:
    paragraph = (
        "Short one. This sentence has as many words as are needed. it begins in lower case and is left out. See the "
        "other one with more words, e.g. Some (that never close are left out of it. Another one is as good as that."
    )
    text = Text("module", "https://docs.python.org", (paragraph,))
    assert sentences_of(text) == ["Another one is as good as that."]
