import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from tests.train.glue.conftest import CheckpointFactory
from tests.train.glue.test_score import cells, reference
from train.errors import TrainError
from train.glue.bootstrap import _drawn, _metrics, bootstrap_interval
from train.glue.cells import values_as_text, values_from_text
from train.glue.compare import Difference, compare_models, compare_noisy, compare_scores, find_model
from train.glue.grid import run_grid
from train.glue.protocol import Protocol
from train.glue.request import Request
from train.glue.score import metric_of, model_scores
from train.glue.tasks import AVERAGES, NUMBERS, TASKS


def by_number(differences: list[Difference]) -> dict[str, Difference]:
    return {entry.number: entry for entry in differences}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("size", "statistic", "degrees", "p_welch", "p_paired"),
    [("base", 1.92, 6.5, 0.10, 0.039), ("small", 3.89, None, 0.015, 0.015)],
)
def test_the_published_seeds_give_the_known_significance_of_pairwise_over_original(
    size: str, statistic: float, degrees: float | None, p_welch: float, p_paired: float, shared: Path
) -> None:
    scores = reference(shared)
    average = by_number(compare_scores(scores[size, "original"], scores[size, "pairwise"]))["glue"]
    assert average.welch is not None
    assert average.welch.statistic == pytest.approx(statistic, abs=0.005)
    if degrees is not None:
        assert average.welch.degrees_of_freedom == pytest.approx(degrees, abs=0.05)
    assert average.welch.p_value == pytest.approx(p_welch, abs=0.005)
    assert average.paired is not None
    assert average.paired.p_value == pytest.approx(p_paired, abs=0.0005)
    assert average.signed_rank is not None
    assert average.signed_rank.p_value == 0.0625


@pytest.mark.shared
def test_the_gain_of_base_comes_from_three_tasks_alone(shared: Path) -> None:
    scores = reference(shared)
    found = by_number(compare_scores(scores["base", "original"], scores["base", "pairwise"]))
    gains = {number: round(100 * entry.mean, 2) for number, entry in found.items()}
    assert (gains["mrpc"], gains["cola"], gains["rte"]) == (2.53, 2.56, 1.16)
    rest = sum(100 * found[number].mean for number in NUMBERS if number not in ("mrpc", "cola", "rte"))
    assert rest == pytest.approx(-0.625, abs=0.001)


def test_tests_are_scipys_on_the_common_seeds() -> None:
    one = model_scores(cells(rte={1: 0.50, 2: 0.54, 3: 0.49, 7: 0.9}))
    other = model_scores(cells(rte={1: 0.55, 2: 0.60, 3: 0.50, 4: 0.1}))
    found = by_number(compare_scores(one, other))["rte"]
    assert found.first.seeds == found.second.seeds == (1, 2, 3)
    first, second = [0.50, 0.54, 0.49], [0.55, 0.60, 0.50]
    assert found.paired is not None
    assert found.paired.p_value == scipy.stats.ttest_rel(second, first).pvalue
    assert found.paired.statistic > 0
    assert found.welch is not None
    assert found.welch.p_value == scipy.stats.ttest_ind(second, first, equal_var=False).pvalue
    assert found.signed_rank is not None
    assert found.signed_rank.p_value == 0.25


def test_holm_corrects_for_the_tasks_and_not_for_their_average() -> None:
    one = model_scores(cells(rte={1: 0.5, 2: 0.6, 3: 0.4}, cola={1: 0.1, 2: 0.3, 3: 0.2}))
    other = model_scores(cells(rte={1: 0.52, 2: 0.64, 3: 0.43}, cola={1: 0.2, 2: 0.3, 3: 0.1}))
    found = by_number(compare_scores(one, other))
    pairs = {number: entry.paired.p_value for number, entry in found.items() if entry.paired}
    assert pairs["rte"] < pairs["cola"]
    assert found["rte"].corrected == pytest.approx(2 * pairs["rte"])
    assert found["cola"].corrected == pytest.approx(max(2 * pairs["rte"], pairs["cola"]))
    assert found["glue"].corrected is None


@pytest.mark.parametrize(
    ("first", "second"),
    [({1: 0.5}, {1: 0.6}), ({1: 0.5, 2: 0.6}, {1: 0.5, 2: 0.6}), ({1: 0.5, 2: 0.6}, {1: 0.6, 2: 0.7})],
)
def test_where_nothing_varies_there_is_no_paired_test(first: dict[int, float], second: dict[int, float]) -> None:
    found = by_number(compare_scores(model_scores(cells(rte=first)), model_scores(cells(rte=second))))["rte"]
    assert found.paired is None
    assert found.signed_rank is None


def test_a_model_that_scores_the_same_under_every_seed_is_tested_without_a_warning() -> None:
    one = model_scores(cells(rte={1: 0.4729, 2: 0.4729, 3: 0.4729}))
    other = model_scores(cells(rte={1: 0.51, 2: 0.53, 3: 0.58}))
    found = by_number(compare_scores(one, other))["rte"]
    assert found.welch is not None
    assert found.welch.statistic == pytest.approx(scipy.stats.ttest_1samp([0.51, 0.53, 0.58], 0.4729).statistic)


def test_degenerate_runs_are_kept_and_also_left_out() -> None:
    one = model_scores(cells(cola={1: 0.4, 2: 0.0, 3: 0.3}))
    other = model_scores(cells(cola={1: 0.5, 2: 0.4, 3: 0.35}))
    found = by_number(compare_scores(one, other, {"cola": [2]}, {}))["cola"]
    assert found.degenerate == (2,)
    assert found.first.seeds == (1, 2, 3)
    assert found.without is not None
    assert found.without.first.seeds == (1, 3)
    assert found.without.mean == pytest.approx(0.075)
    assert found.without.without is None


def test_the_average_holds_the_numbers_of_both_models_and_says_which_it_lacks() -> None:
    one = model_scores(cells(rte={1: 0.5, 2: 0.6}, cola={1: 0.1, 2: 0.3}, qnli={1: 0.2}))
    other = model_scores(cells(rte={1: 0.5, 2: 0.7}, cola={1: 0.2, 2: 0.3}))
    average = by_number(compare_scores(one, other))["glue"]
    assert average.first.values == pytest.approx((0.3, 0.45))
    assert average.second.values == pytest.approx((0.35, 0.5))
    assert average.over is not None
    assert len(average.over.averaged) == 2
    assert average.over.missing == ("mrpc", "mnli_m", "mnli_mm", "qqp", "stsb", "qnli", "sst2")


def test_each_kind_of_average_groups_as_the_table_does() -> None:
    def scores(shift: float) -> dict[tuple[str, int], dict[str, float]]:
        mnli = {("mnli", seed): {"accuracy": 0.6 + shift, "accuracy_mm": 0.8} for seed in (1, 2)}
        rest = {(task, seed): {"accuracy": 0.4 + shift} for task in ("rte", "wnli") for seed in (1, 2)}
        return {**mnli, **rest}

    for kind in AVERAGES:
        one, other = model_scores(scores(0.0)), model_scores(scores(0.1))
        average = by_number(compare_scores(one, other, average=kind))["glue"]
        assert average.first == model_scores(scores(0.0), kind).average
        assert average.second == model_scores(scores(0.1), kind).average
        assert average.over is not None
        assert average.over.kind == kind


def test_seeds_that_are_degenerate_in_no_number_of_the_average_do_not_mark_it() -> None:
    one = model_scores(cells(rte={1: 0.5, 2: 0.6}, wnli={1: 0.5, 2: 0.45}))
    other = model_scores(cells(rte={1: 0.5, 2: 0.7}, wnli={1: 0.5, 2: 0.6}))
    assert by_number(compare_scores(one, other, {"wnli": [1]}))["glue"].degenerate == ()
    leaderboard = compare_scores(one, other, {"wnli": [1]}, average="leaderboard")
    assert by_number(leaderboard)["glue"].degenerate == (1,)


@pytest.mark.parametrize("task", ["mrpc", "cola", "stsb", "mnli"])
def test_resampled_metrics_are_those_of_the_drawn_rows(task: str) -> None:
    random = np.random.default_rng(3)
    shape = 53
    if task == "stsb":
        labels = random.integers(0, 6, shape).astype(np.float32)
        predictions = (labels + random.normal(size=shape)).astype(np.float32)
    else:
        classes = len(TASKS[task].classes)
        labels, predictions = random.integers(0, classes, shape), random.integers(0, classes, shape)
    (drawn,) = _drawn(random, shape, 5)
    names = next(iter(TASKS[task].numbers.values()))
    found = _metrics(names, predictions, labels, drawn, is_regression=task == "stsb")
    expected = [np.mean([metric_of(name, predictions[rows], labels[rows]) for name in names]) for rows in drawn]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_difference_in_every_example_is_beyond_the_choice_of_examples() -> None:
    labels = {"validation": np.arange(40) % 2}
    right, wrong = {"validation": labels["validation"]}, {"validation": 1 - labels["validation"]}
    assert bootstrap_interval(TASKS["rte"], "rte", labels, [wrong, wrong], [right, right], 50) == (1.0, 1.0)
    low, high = bootstrap_interval(TASKS["rte"], "rte", labels, [wrong, right], [right, wrong], 50)
    assert low < 0 < high or low == high == 0
    mixed = {"validation": np.where(np.arange(40) < 4, right["validation"], wrong["validation"])}
    low, high = bootstrap_interval(TASKS["rte"], "rte", labels, [wrong], [mixed], 500)
    assert 0 <= low < 0.1 < high < 0.25


@pytest.mark.parametrize("task", ["mnli", "stsb"])
def test_values_come_back_from_text_exactly(task: str) -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=50).astype(np.float32) if task == "stsb" else random.integers(0, 3, 50)
    assert np.array_equal(values_from_text(TASKS[task], values_as_text(TASKS[task], values)), values)


def scored(out: Path, glue: Path, checkpoint: CheckpointFactory, **protocol: Any) -> Path:
    """A GLUE folder of two models, STS-B under three seeds."""
    run_grid(
        Request(
            checkpoints=[checkpoint("original"), checkpoint("pairwise")],
            out=out,
            tasks=[TASKS["stsb"]],
            seeds=[1, 2, 3],
            protocol=Protocol(epochs=1, learning_rate=1e-3, **protocol),
            data_dir=glue,
            device="cpu",
            workers=1,
        )
    )
    return out


@pytest.mark.slow
def test_noisy_scores_are_tested_too_and_clean_ones_do_not_depend_on_the_noise(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    clean = scored(tmp_path / "clean", glue, checkpoint)
    typos = scored(tmp_path / "typos", glue, checkpoint, noise="typos", noise_rate=0.3)
    one, other = find_model(f"{typos}:original"), find_model(f"{typos}:pairwise")
    noisy = by_number(compare_noisy(one, other, resamples=100))["stsb"]
    for model, side in ((one, noisy.first), (other, noisy.second)):
        noise = {key: cell["noise"]["scores"] for key, cell in model.cells.items()}
        assert side == model_scores(noise).numbers["stsb"]
    assert noisy.interval is not None
    assert noisy.interval[0] <= noisy.mean <= noisy.interval[1]
    undamaged = find_model(f"{clean}:original")
    assert by_number(compare_models(undamaged, other)) == by_number(compare_models(one, other))
    assert by_number(compare_models(undamaged, other))["stsb"].first != noisy.first
    assert compare_noisy(undamaged, other) == []
    protocol = {**other.grid["protocol"], "noise_rate": 0.1}
    assert compare_noisy(one, replace(other, grid={**other.grid, "protocol": protocol})) == []


@pytest.fixture(scope="module")
def trained(glue: Path, checkpoint: CheckpointFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared") / "out"
    run_grid(
        Request(
            checkpoints=[checkpoint("original"), checkpoint("pairwise")],
            out=out,
            tasks=[TASKS["cola"], TASKS["stsb"]],
            seeds=[1, 2, 3],
            protocol=Protocol(epochs=1, learning_rate=1e-3),
            data_dir=glue,
            device="cpu",
            workers=1,
        )
    )
    return out


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "out"))


def test_two_models_of_a_folder_are_compared_number_by_number(folder: Path) -> None:
    first, second = find_model(f"{folder}:original"), find_model(f"{folder}:pairwise")
    found = by_number(compare_models(first, second, resamples=100))
    assert list(found) == ["cola", "stsb", "glue"]
    assert found["stsb"].interval is not None
    assert found["stsb"].interval[0] <= found["stsb"].mean <= found["stsb"].interval[1]
    assert found["glue"].interval is None
    assert found["glue"].mean == pytest.approx((found["cola"].mean + found["stsb"].mean) / 2)
    weights = next(weights for weights, facts in first.grid["checkpoints"].items() if facts["name"] == "pairwise")
    assert find_model(f"{folder}:{weights[:12]}").name == "pairwise"


def test_a_model_that_is_not_there_or_not_alone_is_an_error(folder: Path) -> None:
    with pytest.raises(TrainError, match="holds 2 models, expected one") as caught:
        find_model(str(folder))
    assert caught.value.__notes__ == [f"write {folder}:MODEL with one of original, pairwise"]
    with pytest.raises(TrainError, match="holds no model called parwise"):
        find_model(f"{folder}:parwise")
    with pytest.raises(TrainError, match="nowhere is not a GLUE folder"):
        find_model(str(folder / "nowhere"))


def test_folders_of_other_protocols_or_data_are_not_compared(folder: Path, tmp_path: Path) -> None:
    first = find_model(f"{folder}:original")
    shutil.copytree(folder, tmp_path / "other")
    second = find_model(f"{tmp_path / 'other'}:pairwise")
    compare_models(first, second, resamples=0)
    protocol = {**second.grid["protocol"], "epochs": 7}
    with pytest.raises(TrainError, match="cannot be compared: epochs: 1 → 7"):
        compare_models(first, replace(second, grid={**second.grid, "protocol": protocol}))
    tasks = {**second.grid["tasks"], "cola": {"data": "0" * 64}}
    with pytest.raises(TrainError, match=r"cannot be compared: cola\.data: "):
        compare_models(first, replace(second, grid={**second.grid, "tasks": tasks}))
    with pytest.raises(TrainError, match="share no cell of the same task and seed"):
        compare_models(first, replace(second, cells={}))


def test_the_average_is_that_of_the_folders_tables_unless_one_is_asked_for(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    table = json.loads((other / "table.json").read_text())
    (other / "table.json").write_text(json.dumps({**table, "average": "tasks"}))

    def kind(first: Path, second: Path, average: str | None = None) -> str:
        models = find_model(f"{first}:original"), find_model(f"{second}:pairwise")
        found = by_number(compare_models(*models, resamples=0, average=average))["glue"].over
        assert found is not None
        return found.kind

    assert kind(folder, folder) == "nine"
    assert kind(other, other) == "tasks"
    assert kind(folder, other, "leaderboard") == "leaderboard"
    with pytest.raises(TrainError, match="averages nine numbers, .*other eight tasks: say which") as caught:
        kind(folder, other)
    assert caught.value.__notes__ == ["--average nine"]
    for strange in ("some", ["nine"]):
        (other / "table.json").write_text(json.dumps({**table, "average": strange}))
        with pytest.raises(TrainError, match=r"table\.json is damaged: .*average"):
            kind(other, other)
    (other / "table.json").unlink()
    assert kind(folder, other) == "nine"
