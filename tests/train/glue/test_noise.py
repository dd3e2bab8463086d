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


@pytest.mark.parametrize("kind", NOISES)
def test_the_rate_is_that_of_the_words(kind: str) -> None:
    words = [f"word{number}" for number in range(20_000)]
    changed = NOISES[kind](words, 0.1, np.random.default_rng(1))
    if kind == "drop":
        assert len(changed) == pytest.approx(18_000, abs=200)
    else:
        hit = sum(one != other for one, other in zip(words, changed, strict=True))
        # A swap moves two words and spares the next from being hit; one typo in 26 puts in the letter that was there.
        assert hit == pytest.approx(2 * 20_000 * 0.1 / 1.1 if kind == "swap" else 2_000, abs=200)


def test_noise_is_a_function_of_seed_and_row_and_leaves_training_and_labels_alone(glue: Path) -> None:
    data = read_task(TASKS["rte"], glue)
    one, again, other = (noisy(data, "drop", 0.5, seed) for seed in (1, 1, 2))
    assert one.splits["validation"].text == again.splits["validation"].text
    assert one.splits["validation"].text != other.splits["validation"].text
    assert one.splits.keys() == {"validation"}
    assert (one.splits["validation"].labels == data.splits["validation"].labels).all()
    assert one.sha256 != data.sha256
