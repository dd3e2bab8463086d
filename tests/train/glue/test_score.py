import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from train.errors import TrainError
from train.glue.score import ModelScores, Scores, metric_of, model_scores, numbers_of, predictions_of, scores_of
from train.glue.tasks import AVERAGES, NUMBERS, TASKS, chosen_average

TABLE_3 = {  # Courtois et al. (2024): GLUE, its standard deviation, then the numbers in the order of NUMBERS
    ("small", "original"): (72.72, 0.07, 81.04, 21.39, 77.16, 77.76, 86.08, 54.87, 82.20, 85.45, 88.49),
    ("small", "symmetric"): (69.61, 0.32, 76.81, 10.29, 75.25, 75.72, 85.13, 55.74, 77.83, 82.79, 86.90),
    ("small", "pairwise"): (73.38, 0.37, 82.34, 24.21, 76.37, 76.89, 86.67, 56.25, 84.13, 84.97, 88.60),
    ("base", "original"): (78.74, 0.63, 85.30, 44.35, 81.66, 82.07, 88.86, 59.42, 87.30, 88.76, 90.92),
    ("base", "symmetric"): (74.82, 0.36, 78.36, 35.22, 78.66, 79.05, 87.70, 53.43, 84.47, 86.90, 89.56),
    ("base", "pairwise"): (79.36, 0.37, 87.83, 46.91, 81.60, 82.02, 88.89, 60.58, 86.88, 88.78, 90.78),
}


def reference(shared: Path) -> dict[tuple[str, str], ModelScores]:
    """The authors' own logs, summed up by our code."""
    logs: dict[tuple[str, str], dict[tuple[str, int], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    with (shared / "reference/courtois2024/glue_per_seed.csv").open() as file:
        for row in csv.DictReader(file):
            cell = logs[row["size"], row["operator"]][row["task"], int(row["seed"])]
            cell[row["metric"]] = float(row["value"])
    return {model: model_scores(cells) for model, cells in logs.items()}


@pytest.mark.shared
@pytest.mark.parametrize("model", TABLE_3)
def test_the_authors_logs_give_every_mean_and_standard_deviation_of_table_3(
    model: tuple[str, str], shared: Path
) -> None:
    scores = reference(shared)[model]
    assert scores.average is not None
    assert scores.average.standard_deviation is not None
    row = [scores.average.mean, scores.average.standard_deviation, *(scores.numbers[name].mean for name in NUMBERS)]
    assert tuple(round(100 * value, 2) for value in row) == TABLE_3[model]
    assert not scores.missing


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn_and_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    predictions, labels = random.integers(0, 2, 101), random.integers(0, 2, 101)
    assert metric_of("accuracy", predictions, labels) == sklearn.metrics.accuracy_score(labels, predictions)
    assert metric_of("f1", predictions, labels) == sklearn.metrics.f1_score(labels, predictions)
    matthews = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert metric_of("matthews_correlation", predictions, labels) == matthews
    numbers, truth = (random.normal(size=101).astype(np.float32).astype(np.float64) for _ in range(2))
    assert (
        metric_of("pearson", np.float32(numbers), np.float32(truth)) == scipy.stats.pearsonr(numbers, truth).statistic
    )
    assert (
        metric_of("spearmanr", np.float32(numbers), np.float32(truth))
        == scipy.stats.spearmanr(numbers, truth).statistic
    )


def test_metrics_are_what_their_formulas_say() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    predictions = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])  # 3 true and 2 false positives, 1 false negative
    assert metric_of("accuracy", predictions, labels) == pytest.approx(0.7)
    assert metric_of("f1", predictions, labels) == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    matthews = (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5)
    assert metric_of("matthews_correlation", predictions, labels) == pytest.approx(matthews)


@pytest.mark.parametrize("metric", ["pearson", "spearmanr", "matthews_correlation"])
def test_a_correlation_with_constant_predictions_is_zero(metric: str) -> None:
    assert metric_of(metric, np.ones(7, np.int64), np.array([0, 1, 1, 0, 1, 0, 0])) == 0.0


@pytest.mark.parametrize("name", ["rte", "cola", "mrpc", "stsb"])
@pytest.mark.parametrize("prediction", [0, 1])
def test_a_validation_set_of_one_class_is_scored_without_a_warning(name: str, prediction: int) -> None:
    kind = np.float32 if name == "stsb" else np.int64
    labels, predictions = {"validation": np.zeros(5, kind)}, {"validation": np.full(5, prediction, kind)}
    scores = scores_of(TASKS[name], predictions, labels)
    assert scores == {metric: float(metric == "accuracy" and not prediction) for metric in TASKS[name].metrics}


def test_the_halves_of_mnli_are_scored_apart() -> None:
    labels = {"validation_matched": np.array([0, 1, 2, 0]), "validation_mismatched": np.array([0, 1])}
    predictions = {"validation_matched": np.array([0, 1, 2, 1]), "validation_mismatched": np.array([0, 0])}
    scores = scores_of(TASKS["mnli"], predictions, labels)
    assert scores == {"accuracy": 0.75, "accuracy_mm": 0.5}
    assert numbers_of(TASKS["mnli"], scores) == {"mnli_m": 0.75, "mnli_mm": 0.5}


def test_predictions_are_the_likeliest_class_or_the_number_itself() -> None:
    logits = np.array([[0.1, 0.2], [3.0, -1.0]], np.float32)
    assert predictions_of(TASKS["rte"], logits).tolist() == [1, 0]
    assert predictions_of(TASKS["stsb"], logits[:, :1]).tolist() == logits[:, 0].tolist()


def cells(**numbers: dict[int, float]) -> dict[tuple[str, int], Scores]:
    metric = {"rte": "accuracy", "cola": "matthews_correlation", "wnli": "accuracy", "qnli": "accuracy"}
    return {(task, seed): {metric[task]: value} for task, by_seed in numbers.items() for seed, value in by_seed.items()}


def test_the_standard_deviation_is_that_of_the_seeds_averages() -> None:
    scores = model_scores(cells(rte={1: 0.5, 2: 0.7}, cola={1: 0.3, 2: 0.1}))
    assert scores.average is not None
    assert scores.average.values == pytest.approx((0.4, 0.4))
    assert scores.average.standard_deviation == pytest.approx(0.0)
    assert scores.numbers["rte"].standard_deviation == pytest.approx(math.sqrt(0.02))
    assert scores.averaged == (("cola",), ("rte",))
    assert len(scores.missing) == 7


def test_a_single_seed_has_no_standard_deviation() -> None:
    average = model_scores(cells(rte={3: 0.5})).average
    assert average is not None
    assert (average.seeds, average.mean, average.standard_deviation) == ((3,), 0.5, None)


def test_a_seed_that_lacks_a_number_is_left_out_of_the_average_alone() -> None:
    scores = model_scores(cells(rte={1: 0.5, 2: 0.7, 3: 0.9}, cola={2: 0.1}))
    assert scores.average is not None
    assert scores.average.seeds == (2,)
    assert scores.numbers["rte"].seeds == (1, 2, 3)
    assert model_scores(cells(rte={1: 0.5}, cola={2: 0.1})).average is None


def test_wnli_is_shown_and_not_averaged() -> None:
    scores = model_scores(cells(wnli={1: 0.5}, rte={1: 0.6}))
    assert scores.average is not None
    assert scores.average.mean == 0.6
    assert scores.numbers["wnli"].mean == 0.5
    assert model_scores(cells(wnli={1: 0.5})).average is None


def test_averages_count_mnli_twice_once_or_beside_wnli() -> None:
    found = {
        ("mnli", 1): {"accuracy": 0.8, "accuracy_mm": 0.6},
        ("rte", 1): {"accuracy": 0.4},
        ("wnli", 1): {"accuracy": 0.1},
    }
    means = {kind: model_scores(found, kind).average for kind in AVERAGES}
    assert {kind: average.mean for kind, average in means.items() if average} == {
        "nine": pytest.approx((0.8 + 0.6 + 0.4) / 3),
        "tasks": pytest.approx((0.7 + 0.4) / 2),
        "leaderboard": pytest.approx((0.7 + 0.4 + 0.1) / 3),
    }
    assert "wnli" in model_scores({}, "leaderboard").missing
    assert "wnli" not in model_scores({}, "tasks").missing
    with pytest.raises(TrainError, match="`mean` is not an average, expected one of nine, tasks, leaderboard"):
        chosen_average("mean")
