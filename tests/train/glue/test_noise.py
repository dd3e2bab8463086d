from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.glue.noise import NOISES, drop, noisy, swap, typos
from train.glue.read import read_task
from train.glue.tasks import TASKS

sentences = st.lists(st.text("abcxyz", min_size=1, max_size=6), min_size=1, max_size=12)


@given(sentences, st.integers(0, 99))
def test_typos_are_one_edit_in_a_word_and_keep_the_number_of_words(words: list[str], seed: int) -> None:
    changed = typos(words, 0.5, np.random.default_rng(seed))
    assert len(changed) == len(words)
    for before, after in zip(words, changed, strict=True):
        assert abs(len(after) - len(before)) <= 1
        assert after
        same = sum(1 for one, other in zip(before, after, strict=False) if one == other)
        tail = sum(1 for one, other in zip(before[::-1], after[::-1], strict=False) if one == other)
        assert same + tail >= len(before) - 2


@given(sentences, st.integers(0, 99))
def test_drop_keeps_the_order_and_at_least_one_word(words: list[str], seed: int) -> None:
    kept = drop(words, 0.7, np.random.default_rng(seed))
    rest = iter(words)
    assert kept
    assert all(word in rest for word in kept)


@given(sentences, st.integers(0, 99))
def test_swap_moves_words_by_one_place(words: list[str], seed: int) -> None:
    numbered = [f"{place} {word}" for place, word in enumerate(words)]
    swapped = swap(numbered, 0.5, np.random.default_rng(seed))
    assert sorted(swapped) == sorted(numbered)
    assert all(abs(numbered.index(word) - place) <= 1 for place, word in enumerate(swapped))


def share_of_words_hit(kind: str, rate: float, length: int, sentences: int) -> float:
    """Of sentences of unlike words, the share of words that are changed, left out or no longer in their place."""
    random, hit = np.random.default_rng(1), 0
    words = [f"word{number}" for number in range(length)]
    for _ in range(sentences):
        changed = NOISES[kind](words, rate, random)
        if kind == "drop":
            hit += length - len(changed)
        else:
            hit += sum(one != other for one, other in zip(words, changed, strict=True))
    return hit / (length * sentences)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("length", [2, 3, 7, 30])
@pytest.mark.parametrize("kind", NOISES)
def test_the_rate_is_the_share_of_words_that_are_hit(kind: str, length: int, rate: float) -> None:
    # A sentence keeps one word: dropping all of n words with probability rate^n spares one of n.
    expected = rate - rate**length / length if kind == "drop" else rate
    sentences = 60_000 // length
    # Swapped words come in twos, so that their count varies most: four standard errors.
    error = 4 * np.sqrt(2 * rate / (length * sentences))
    assert share_of_words_hit(kind, rate, length, sentences) == pytest.approx(expected, abs=error)


def test_at_the_highest_rate_every_pair_of_neighbours_is_still_exchanged_at_times() -> None:
    places = {
        place
        for seed in range(20)
        for place, word in enumerate(swap(["a", "b", "c", "d", "e"], 1.0, np.random.default_rng(seed)))
        if word != "abcde"[place]
    }
    assert places == {0, 1, 2, 3, 4}
    assert share_of_words_hit("swap", 1.0, 5, 200) == pytest.approx(4 / 5)
    assert share_of_words_hit("swap", 1.0, 2, 200) == 1.0


def test_a_single_word_is_neither_dropped_nor_swapped() -> None:
    assert drop(["alone"], 1.0, np.random.default_rng(1)) == swap(["alone"], 1.0, np.random.default_rng(1)) == ["alone"]


def test_noise_is_a_function_of_seed_and_row_and_leaves_training_and_labels_alone(glue: Path) -> None:
    data = read_task(TASKS["rte"], glue)
    one, again, other = (noisy(data, "drop", 0.5, seed) for seed in (1, 1, 2))
    assert one.splits["validation"].text == again.splits["validation"].text
    assert one.splits["validation"].text != other.splits["validation"].text
    assert one.splits.keys() == {"validation"}
    assert (one.splits["validation"].labels == data.splits["validation"].labels).all()
    assert one.sha256 != data.sha256
