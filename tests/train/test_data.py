import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from train.data import EVALUATION_MASKS, TRAINING_MASKS, Masking, TrainingOrder, Vocabulary, key, permuted

VOCABULARY = Vocabulary(size=1009, mask_id=4, special_ids=(0, 1, 2, 3, 4))
PINNED_ORDER = [75601623, 8497970, 74401211, 94784191, 40068745]
PINNED_POSITIONS = [24, 39, 60, 72, 75, 82]
MASKING = Masking(probability=0.15, mask_share=0.8, random_share=0.1, vocabulary=VOCABULARY)


def positions(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)


def tokens(samples: int, length: int = 128) -> np.ndarray:
    return np.random.default_rng(samples).integers(0, VOCABULARY.size, (samples, length))


def masked(tokens: np.ndarray, samples: np.ndarray, epoch: int = 0, parts: tuple[int, ...] = (TRAINING_MASKS, 1)):
    return MASKING(tokens, samples, np.full_like(samples, epoch), parts)


@pytest.mark.parametrize("size", [1, 2, 3, 997, 4096, 100_003])
def test_the_permutation_is_a_bijection(size: int) -> None:
    assert sorted(permuted(positions(size), size, seed=1, epoch=0).tolist()) == list(range(size))


@pytest.mark.slow
def test_every_order_of_four_samples_is_about_equally_frequent() -> None:
    orders = Counter(tuple(permuted(positions(4), 4, seed=1, epoch=epoch).tolist()) for epoch in range(2400))
    assert set(orders) == set(itertools.permutations(range(4)))
    chi_square = sum((count - 100) ** 2 / 100 for count in orders.values())
    assert chi_square < 49.7  # 23 degrees of freedom, p = 0.001


def test_a_thousand_of_137_million_positions_need_no_list_of_them() -> None:
    tracemalloc.start()
    found = permuted(positions(1000), 137_000_000, seed=1, epoch=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(found.tolist())) == 1000
    assert peak < 5e6


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [permuted(positions(997), 997, seed, epoch) for seed, epoch in [(1, 0), (2, 0), (1, 1)]]
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).mean() < 0.02


def test_an_epoch_holds_every_sample_once_and_batches_reach_into_the_next() -> None:
    order = TrainingOrder(size=10, seed=3)
    pieces = [order.at(at, at + 4) for at in range(0, 20, 4)]
    samples = np.concatenate([piece[0] for piece in pieces])
    epochs = np.concatenate([piece[1] for piece in pieces])
    assert sorted(samples[:10].tolist()) == sorted(samples[10:].tolist()) == list(range(10))
    assert epochs.tolist() == [0] * 10 + [1] * 10
    assert samples[:10].tolist() != samples[10:].tolist()


def test_the_order_does_not_depend_on_how_it_is_asked_for() -> None:
    order = TrainingOrder(size=101, seed=3)
    pieces = np.concatenate([order.at(at, at + 1)[0] for at in range(300)])
    assert (pieces == order.at(0, 300)[0]).all()


def test_masks_depend_on_the_sample_alone_and_not_on_its_batch() -> None:
    rows = tokens(12)
    together = masked(rows, positions(12))
    for sample in range(12):
        alone = masked(rows[sample : sample + 1], positions(12)[sample : sample + 1])
        part = together.part(sample, sample + 1)
        assert (part.input_ids == alone.input_ids).all()
        assert part.positions.tolist() == alone.positions.tolist()
        assert part.labels.tolist() == alone.labels.tolist()


def test_fifteen_percent_are_predicted_of_which_most_are_hidden() -> None:
    rows = np.full((4000, 128), 700)
    batch = masked(rows, positions(4000))
    seen = batch.input_ids.reshape(-1)[batch.positions]
    assert len(batch.positions) / rows.size == pytest.approx(0.15, abs=0.002)
    assert (seen == VOCABULARY.mask_id).mean() == pytest.approx(0.8, abs=0.01)
    assert (seen == 700).mean() == pytest.approx(0.1, abs=0.005)
    replaced = seen[(seen != VOCABULARY.mask_id) & (seen != 700)]
    counts = np.bincount(replaced, minlength=VOCABULARY.size)
    assert 0.7 < counts.std() / counts.mean() ** 0.5 < 1.4  # even over the vocabulary: Poisson


def test_what_is_not_predicted_is_seen_as_it_is_and_labels_are_the_originals() -> None:
    rows = tokens(50)
    batch = masked(rows, positions(50))
    assert (batch.labels == rows.reshape(-1)[batch.positions]).all()
    rest = np.delete(np.arange(rows.size), batch.positions)
    assert (batch.input_ids.reshape(-1)[rest] == rows.reshape(-1)[rest]).all()


def test_special_tokens_are_never_predicted() -> None:
    rows = np.tile(np.array([0, 1, 2, 3, 4, 500]), (200, 20))
    assert set(masked(rows, positions(200)).labels.tolist()) == {500}


def test_epochs_seeds_and_uses_have_masks_of_their_own() -> None:
    rows = tokens(20)
    uses = [(0, (TRAINING_MASKS, 1)), (1, (TRAINING_MASKS, 1)), (0, (TRAINING_MASKS, 2)), (0, (EVALUATION_MASKS, 1))]
    found = [set(masked(rows, positions(20), epoch, parts).positions.tolist()) for epoch, parts in uses]
    for one, other in itertools.combinations(found, 2):
        assert len(one & other) < 0.25 * len(one)


def test_order_and_masks_of_a_seed_never_change() -> None:
    assert permuted(positions(5), 137_000_000, seed=1, epoch=0).tolist() == PINNED_ORDER
    assert masked(np.full((2, 128), 700), positions(2)).positions[:6].tolist() == PINNED_POSITIONS


def test_padding_adds_samples_and_labels_that_losses_leave_out() -> None:
    batch = masked(tokens(3), positions(3))
    count = len(batch.labels)
    padded = batch.padded(5, count + 4)
    assert (padded.input_ids[:3] == batch.input_ids).all()
    assert padded.input_ids.shape[0] == 5
    assert (padded.positions[:count] == batch.positions).all()
    assert padded.positions[count:].tolist() == [0] * 4
    assert padded.labels[count:].tolist() == [-100] * 4


def test_keys_tell_their_parts_apart() -> None:
    assert len({key(1, 2), key(2, 1), key(1, 2, 0), key(12)}) == 4
