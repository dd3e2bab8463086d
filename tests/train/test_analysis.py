import csv
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from report.published import LOSSES, read_published
from train.analysis import (
    crossing,
    first_below,
    holm,
    interval,
    paired,
    plateau_end,
    plateau_level,
    signed_rank,
    stays_below,
    welch,
)

STEPS = np.arange(0, 50_001, 250)
# First evaluated step below 5.5 nats on the curves of Courtois et al. (2024), Figure 2.
PUBLISHED_PLATEAU_ENDS = {
    "base": {"original": 27_750, "symmetric": 15_000, "pairwise": 13_000},
    "small": {"original": 14_750, "symmetric": 13_750, "pairwise": 10_750},
}


class Curve(NamedTuple):
    steps: Sequence[int]
    losses: Sequence[float]


def synthetic(seed: int) -> tuple[Curve, int]:
    """A noisy curve with a plateau, and the step at which it first lies 0.4 nats below it without the noise."""
    random = np.random.default_rng(seed)
    level, end = random.uniform(5.5, 6.5), random.integers(8_000, 30_000)
    speed, noise = random.uniform(1_000, 4_000), random.uniform(0.005, 0.06)
    arrival = (10.3 - level) * np.exp(-STEPS / random.uniform(400, 1_200))
    fall = 4.0 * (1 - np.exp(-np.maximum(0, STEPS - end) / speed))
    clean = level + arrival - fall
    known = int(STEPS[np.flatnonzero((clean < level - 0.4) & (end < STEPS))[0]])
    return Curve(tuple(STEPS.tolist()), tuple((clean + random.normal(0, noise, len(STEPS))).tolist())), known


@pytest.mark.parametrize("seed", range(20))
def test_the_known_end_of_a_noisy_plateau_is_found(seed: int) -> None:
    curve, known = synthetic(seed)
    found = plateau_end(curve.steps, curve.losses)
    assert found is not None
    assert abs(found - known) <= 750


@pytest.mark.parametrize("seed", range(3))
def test_a_known_unigram_entropy_takes_the_place_of_the_level(seed: int) -> None:
    curve, known = synthetic(seed)
    level = plateau_level(curve.steps, curve.losses)
    assert level is not None
    found = plateau_end(curve.steps, curve.losses, unigram_entropy=level)
    assert found is not None
    assert abs(found - known) <= 750


def test_a_curve_still_on_its_plateau_has_no_end() -> None:
    losses = [10.0, 7.0, *[6.0] * 50]
    steps = range(0, 52 * 250, 250)
    assert plateau_end(steps, losses) is None
    assert plateau_end(steps, losses, unigram_entropy=6.0) is None


def test_below_a_level_once_is_not_below_it_for_good() -> None:
    steps, losses = [0, 10, 20, 30, 40], [3.0, 1.7, 1.9, 1.6, 1.5]
    assert first_below(steps, losses, 1.8) == 10
    assert stays_below(steps, losses, 1.8) == 30
    assert first_below(steps, losses, 1.0) is None
    assert stays_below(steps, losses, 1.55) == 40
    assert stays_below(steps, [*losses[:4], 2.0], 1.8) is None
    assert stays_below(steps, losses, 4.0) == 0


def test_a_crossing_is_interpolated() -> None:
    assert crossing([0, 10, 20], [0.0, 1.0, 3.0], 2.0) == 15.0
    assert crossing([5, 10], [2.0, 3.0], 1.0) == 5.0
    assert crossing([5, 10], [2.0, 3.0], 4.0) is None


def test_holm_corrects_as_in_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def by_all_signs(differences: Sequence[int]) -> float:
    """The share of all ways to draw the signs in which the ranks' sums lie at least as far apart."""
    ranks = stats.rankdata(np.abs([value for value in differences if value]))
    signs = np.array(list(itertools.product((1, -1), repeat=len(ranks))))
    found = abs(np.dot(np.sign([value for value in differences if value]), ranks))
    return float(np.mean(np.abs(signs @ ranks) >= found - 1e-9))


@pytest.mark.parametrize(
    ("right", "others"),
    [
        ([151, 153, 150, 150, 154], [150, 152, 149, 151, 153]),
        ([160, 161, 158, 158, 150], [150, 152, 149, 151, 153]),
        ([151, 152, 149, 153, 150], [150, 152, 149, 151, 153]),
        ([151, 151, 149, 153, 150, 155, 140, 150], [150, 152, 147, 151, 153, 150, 141, 148]),
    ],
)
def test_wilcoxon_is_exact_where_seeds_are_the_same_number_of_answers_apart(
    right: list[int], others: list[int]
) -> None:
    found = signed_rank([count / 277 for count in right], [count / 277 for count in others])
    assert found.p_value == pytest.approx(by_all_signs(np.subtract(right, others).tolist()))


def test_wilcoxon_of_many_seeds_is_scipys() -> None:
    random = np.random.default_rng(1)
    one, other = random.normal(size=(2, 20))
    assert signed_rank(one, other).p_value == stats.wilcoxon(one, other, method="exact").pvalue


def test_the_interval_is_students() -> None:
    values = [78.1, 78.9, 79.4, 78.2, 79.1]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    assert interval([1.0]) is None


@pytest.mark.shared
class TestOnThePublishedNumbers:
    """Courtois et al. (2024), Figures 2 and 3 and Table 3, from the authors' own logs."""

    @pytest.fixture
    def folder(self, shared: Path) -> Path:
        return shared / "reference" / "courtois2024"

    @pytest.fixture
    def curves(self, folder: Path) -> dict[tuple[str, str], Curve]:
        assert (folder / LOSSES).is_file()
        return {model: Curve(*zip(*points, strict=True)) for model, points in read_published(folder).losses.items()}

    @pytest.mark.parametrize("size", PUBLISHED_PLATEAU_ENDS)
    @pytest.mark.parametrize("operator", ["original", "symmetric", "pairwise"])
    def test_the_plateau_ends_where_the_loss_first_falls_below_five_and_a_half(
        self, curves: dict[tuple[str, str], Curve], size: str, operator: str
    ) -> None:
        curve = curves[size, operator]
        assert len(curve.steps) == 800
        published = PUBLISHED_PLATEAU_ENDS[size][operator]
        assert first_below(curve.steps, curve.losses, 5.5) == published
        assert plateau_end(curve.steps, curve.losses) == pytest.approx(published, rel=0.09)

    def test_steps_to_a_loss_of_1_8(self, curves: dict[tuple[str, str], Curve]) -> None:
        base = [curves["base", operator] for operator in ("original", "symmetric", "pairwise")]
        assert [first_below(one.steps, one.losses, 1.8) for one in base] == [114_000, 169_250, 107_250]
        assert [stays_below(one.steps, one.losses, 1.8) for one in base] == [117_000, 196_500, 115_750]

    @pytest.mark.parametrize(("size", "ratio"), [("base", 0.47), ("small", 0.73)])
    def test_half_the_steps_is_the_length_of_the_plateau(
        self, curves: dict[tuple[str, str], Curve], size: str, ratio: float
    ) -> None:
        ends = {operator: first_below(*curves[size, operator], 5.5) for operator in ("pairwise", "original")}
        assert ends["pairwise"] / ends["original"] == pytest.approx(ratio, abs=0.005)

    def test_the_gap_of_the_base_models_closes(self, curves: dict[tuple[str, str], Curve]) -> None:
        pairwise, original = curves["base", "pairwise"], curves["base", "original"]
        gaps = {
            step: loss - original.losses[original.steps.index(step)]
            for step, loss in zip(pairwise.steps, pairwise.losses, strict=True)
        }
        expected = {50_000: -0.141, 100_000: -0.025, 150_000: -0.007, 200_000: -0.002}
        assert {step: round(gaps[step], 3) for step in expected} == expected

    def test_seeds_differ_as_much_as_the_tests_say(self, folder: Path) -> None:
        scores = averages(folder / "glue_per_seed.csv", "seed")
        base = scores["base", "pairwise"], scores["base", "original"]
        small = scores["small", "pairwise"], scores["small", "original"]
        found = welch(*base)
        assert found.statistic == pytest.approx(1.92, abs=0.005)
        assert found.degrees_of_freedom == pytest.approx(6.5, abs=0.05)
        assert found.p_value == pytest.approx(0.10, abs=0.005)
        assert welch(*small).statistic == pytest.approx(3.89, abs=0.005)
        assert welch(*small).p_value == pytest.approx(0.015, abs=0.0005)
        assert paired(*base).p_value == pytest.approx(0.039, abs=0.0005)
        assert paired(*small).p_value == pytest.approx(0.015, abs=0.0005)
        assert signed_rank(*base).p_value == 0.0625

    def test_ninety_five_percent_of_the_final_score_is_reached_at(self, folder: Path) -> None:
        scores = averages(folder / "glue_per_checkpoint.csv", "step")
        steps = sorted({step for step, _ in by_place(folder / "glue_per_checkpoint.csv", "step")["base", "pairwise"]})
        level = 0.95 * scores["base", "pairwise"][-1]
        assert crossing(steps, scores["base", "pairwise"], level) == pytest.approx(32_800, abs=50)
        assert crossing(steps, scores["base", "original"], level) == pytest.approx(65_500, abs=50)


NINE = {
    ("mrpc", "combined_score"), ("cola", "matthews_correlation"), ("mnli", "accuracy"), ("mnli", "accuracy_mm"),
    ("qqp", "combined_score"), ("rte", "accuracy"), ("stsb", "combined_score"), ("qnli", "accuracy"),
    ("sst2", "accuracy"),
}  # fmt: skip


def by_place(path: Path, place: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (row["task"], row["metric"]) in NINE:
                found[row["size"], row["operator"]].append((int(row[place]), float(row["value"])))
    return found


def averages(path: Path, place: str) -> dict[tuple[str, str], list[float]]:
    """The nine-number average of each model at each seed or step, in percent."""
    result = {}
    for model, values in by_place(path, place).items():
        groups: dict[int, list[float]] = defaultdict(list)
        for number, value in values:
            groups[number].append(value)
        assert all(len(group) == 9 for group in groups.values())
        result[model] = [100 * float(np.mean(groups[number])) for number in sorted(groups)]
    return result
