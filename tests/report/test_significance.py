"""Which baseline a model is tested against, over what, and what the best score is; with numbers to check by hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from report.build import Inputs, build_report
from report.checkpoints import checkpoints_section
from report.comparison import comparisons
from report.document import Paragraph, Table
from report.glue import glue_section
from report.models import Model, read_glue
from report.replicas import replicas_of
from report.runs import read_run
from report.significance import difference_tables
from tests.report.conftest import Study
from train.glue.curve import Point, curves_of, line_of
from train.glue.score import model_scores


def model(label: str, scores: list[float], operator: str = "original", **facts: object) -> Model:
    """A checkpoint with RTE's accuracy of fine-tuning seeds 1, 2, …; CoLA's is the half."""
    cells = {("rte", seed): {"accuracy": score} for seed, score in enumerate(scores, start=1)}
    cells |= {("cola", seed): {"matthews_correlation": score / 2} for seed, score in enumerate(scores, start=1)}
    known = {"run": label, "step": 20, "settings": label.rpartition("-")[0], "rest": "r", **facts}
    return Model(label, "here", operator, model_scores(cells), **known)  # type: ignore[arg-type]


def replicas(name: str, by_seed: dict[int, list[float]], operator: str, **facts: object) -> list[Model]:
    return [model(f"{name}-{seed}", scores, operator, seed=seed, **facts) for seed, scores in by_seed.items()]


ORIGINAL = replicas("original", {1: [0.60, 0.64], 2: [0.50, 0.54], 3: [0.70, 0.74]}, "original")
PAIRWISE = replicas("pairwise", {1: [0.64, 0.68], 2: [0.58, 0.62], 3: [0.76, 0.80]}, "pairwise")
GAIN = replicas("original-gain", {1: [0.10, 0.20]}, "original", gain=4.6)


def average_of(models: list[Model]) -> Table:
    found = difference_tables("glue", "GLUE", models)
    return found[0]


def row(table: Table, number: int = 0) -> dict[str, object]:
    return dict(zip([column.key for column in table.columns], table.rows[number], strict=True))


def test_the_control_with_a_gain_is_no_baseline_wherever_it_stands() -> None:
    table = average_of([GAIN[0], PAIRWISE[0], ORIGINAL[0]])
    assert [tuple(found[:2]) for found in table.rows] == [
        ("original-gain-1", "original-1"),
        ("pairwise-1", "original-1"),
    ]


def test_an_original_of_another_seed_or_step_is_not_tested_against_the_baseline() -> None:
    earlier = replace(ORIGINAL[0], label="original-1/step-6", step=6)
    table = average_of([*ORIGINAL, earlier, PAIRWISE[0]])
    assert [found[0] for found in table.rows] == ["pairwise-1"]


def test_the_baseline_is_of_the_same_pretraining_seed() -> None:
    assert average_of([*ORIGINAL, PAIRWISE[1]]).rows[0][:2] == ["pairwise-2", "original-2"]


def test_the_baseline_is_of_the_same_step_where_there_is_one_else_the_last() -> None:
    steps = [replace(ORIGINAL[0], label=f"original-1/{step}", step=step) for step in (6, 12)]
    others = [replace(PAIRWISE[0], label=f"pairwise-1/{step}", step=step) for step in (6, 8)]
    assert [found[1] for found in average_of([*steps, *others]).rows] == ["original-1/6", "original-1/12"]


def test_the_baseline_differs_in_nothing_but_what_is_studied() -> None:
    longer = replicas("longer", {1: [0.9, 0.9]}, "original", rest="longer")
    table = average_of([*longer, ORIGINAL[0], PAIRWISE[0]])
    assert [tuple(found[:2]) for found in table.rows] == [("pairwise-1", "original-1")]
    (only,) = average_of([*longer, PAIRWISE[0]]).rows
    assert only[:2] == ["pairwise-1", "longer-1"]
    assert any("differ in more than their attention" in note for note in average_of([*longer, PAIRWISE[0]]).notes)


def test_models_of_several_pretraining_seeds_are_paired_by_these() -> None:
    """Averages over RTE and CoLA, half of RTE: 0.75 · (0.04, 0.08, 0.06), mean 0.045, sample deviation 0.015."""
    mixed = [found for pair in zip(ORIGINAL, PAIRWISE, strict=True) for found in pair]
    table = average_of(mixed)
    assert len(table.rows) == 1
    found = row(table)
    assert (found["model"], found["baseline"]) == ("pairwise-1,2,3", "original-1,2,3")
    assert found["difference"] == pytest.approx(0.045)
    # t = 0.045 / (0.015 / √3) = 5.196 with two degrees of freedom: p = 1 − t / √(t² + 2) = 0.0351.
    assert found["paired_p"] == pytest.approx(0.0351, abs=5e-5)
    # Means by pre-training seed 0.75 · (0.66, 0.60, 0.78) and 0.75 · (0.62, 0.52, 0.72): variances 0.0047250 and
    # 0.005625, t = 0.045 / √((0.004725 + 0.005625) / 3) = 0.7661.
    assert found["welch_t"] == pytest.approx(0.7661, abs=5e-5)
    assert found["wilcoxon_p"] == pytest.approx(0.25)  # three pairs of one sign: 2 of 8 signings
    assert any("Over pre-training seeds" in note and "pairwise-1,2,3" in note for note in table.notes)
    assert not any("checkpoints, not operators" in note for note in table.notes)
    by_task = difference_tables("glue", "GLUE", mixed)[1]
    cola, rte = (found for found in by_task.rows)
    assert (cola[1], rte[1]) == (pytest.approx(0.03), pytest.approx(0.06))
    # Both are the same p as above; Holm doubles the first.
    assert (cola[2], rte[2]) == (pytest.approx(0.0702, abs=1e-4), pytest.approx(0.0702, abs=1e-4))


def test_with_one_pretraining_seed_the_tests_are_over_finetuning_seeds_and_the_page_says_what_that_is() -> None:
    table = average_of([ORIGINAL[0], replace(PAIRWISE[0], scores=model("p", [0.62, 0.70]).scores)])
    found = row(table)
    assert found["difference"] == pytest.approx(0.75 * 0.04)
    # Differences 0.75 · (0.02, 0.06): t = 0.04 / 0.02 = 2 with one degree of freedom, p = 1 − 2 arctan(2) / π.
    assert found["paired_p"] == pytest.approx(0.2952, abs=5e-5)
    assert any(
        note == "Over the fine-tuning seeds of one pre-training seed: pairwise-1. These tests compare checkpoints, not "
        "operators."
        for note in table.notes
    )


def test_only_common_pretraining_seeds_are_paired_and_what_is_left_out_is_named() -> None:
    table = average_of([*ORIGINAL[:2], *PAIRWISE])
    assert table.rows[0][:2] == ["pairwise-1,2", "original-1,2"]
    assert row(table)["difference"] == pytest.approx(0.75 * 0.06)
    assert "Not compared, for no original has their pre-training seed: pairwise-3." in table.notes
    assert (
        "pairwise-3 and original-1 are of different pre-training seeds." in average_of([ORIGINAL[0], PAIRWISE[2]]).notes
    )


def test_what_differs_in_more_than_its_seed_is_another_model() -> None:
    scaled = replicas("pairwise-scaled", {2: [0.5, 0.6]}, "pairwise")
    assert [found.label for found in replicas_of([*PAIRWISE, *scaled])] == ["pairwise-1,2,3", "pairwise-scaled-2"]
    unknown = [replace(found, settings="", seed=None) for found in PAIRWISE]
    assert [found.label for found in replicas_of(unknown)] == ["pairwise-1", "pairwise-2", "pairwise-3"]
    twice = [PAIRWISE[0], replace(PAIRWISE[0], label="again")]
    assert [found.label for found in replicas_of(twice)] == ["pairwise-1", "again"]


def test_the_best_score_is_a_models_mean_over_its_seeds_not_its_luckiest_seed() -> None:
    from report.build import _glue_facts

    lucky = replicas("lucky", {1: [0.99, 0.99], 2: [0.01, 0.01]}, "symmetric")
    (fact,) = _glue_facts([*lucky, *ORIGINAL, *PAIRWISE])
    # 0.75 · (0.66 + 0.60 + 0.78) / 3 = 0.51, deviation 0.75 · 0.0916515 = 0.0687.
    assert (fact.value, fact.note) == ("51.00 ± 6.87", "pairwise-1,2,3, mean of 3 pre-training seeds")


def test_an_average_of_fewer_numbers_is_not_the_best() -> None:
    from report.build import _glue_facts

    easy = replace(ORIGINAL[0], label="easy", settings="easy", scores=model_scores({("rte", 1): {"accuracy": 0.99}}))
    (fact,) = _glue_facts([easy, PAIRWISE[0]])
    assert fact.note == "pairwise-1"


def test_the_line_of_the_curves_is_that_of_the_best_model_not_of_its_luckiest_run() -> None:
    finals = {"a-1": 0.9, "a-2": 0.5, "b-1": 0.8}
    points = {
        run: [
            Point(step, model_scores({("rte", 1): {"accuracy": score}}), run, run[0])
            for step, score in ((6, 0.1), (20, final))
        ]
        for run, final in finals.items()
    }
    curves, _ = curves_of(points)
    assert line_of(curves) == pytest.approx(0.95 * 0.8)
    models = [
        Model(f"{run}/{step}", "here", "original", found.scores, run, found.step, seed=int(run[2]), settings=run[0])
        for run, path in points.items()
        for step, found in enumerate(path)
    ]
    section = checkpoints_section(models, None)
    assert section is not None
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.columns[1].heading == "passes 76.00 at"
    assert "a mean over pre-training seeds" in table.notes[0]


def test_the_baseline_of_the_losses_differs_from_most_runs_in_their_attention_alone(study: Study) -> None:
    original, _, *pairwise = [read_run(run) for run in study.runs]
    longer = replace(original, settings={**original.settings, "schedule.warmup_steps": 9})
    gain = replace(original, settings={**original.settings, "model.attention_logit_gain": 2.0})
    for runs in ([longer, gain, original, *pairwise], [gain, original, longer, *pairwise]):
        (found,) = comparisons(runs, None)
        assert found.baseline is not None
        assert found.baseline.runs == (original,)


def older(study: Study, folder: Path, **facts: dict[str, str]) -> Path:
    """A GLUE folder whose grid.json has no facts of the pre-training, and by a run's name others' facts."""
    shutil.copytree(study.glue, folder)
    grid = json.loads((folder / "grid.json").read_text("utf-8"))
    for checkpoint in grid["checkpoints"].values():
        for name in ("pretraining", "attention_logit_gain"):
            del checkpoint[name]
        checkpoint.update(facts.get(checkpoint["run"].replace("-", "_"), {}))
    (folder / "grid.json").write_text(json.dumps(grid), "utf-8")
    return folder


def test_a_glue_folder_records_the_pretraining_and_the_runs_tell_it_of_an_older_one(
    study: Study, tmp_path: Path
) -> None:
    runs = [read_run(run) for run in study.runs]
    recorded = read_glue(study.glue).models
    assert [(found.run, found.seed, found.gain) for found in recorded] == [
        ("original-1", 1, 1.0), ("pairwise-1", 1, 1.0), ("pairwise-1", 1, 1.0),
    ]  # fmt: skip
    assert recorded[0].rest == recorded[1].rest != ""
    assert recorded[0].settings != recorded[1].settings == recorded[2].settings
    folder = older(study, tmp_path / "glue")
    assert read_glue(folder, runs).models == recorded
    assert [(found.settings, found.seed) for found in read_glue(folder).models] == [("", None)] * 3
    seeds = {run.name: run.pretraining for run in runs}
    assert seeds["original-1"]["model"] == seeds["original-2"]["model"]  # type: ignore[index]
    assert seeds["pairwise-1"]["model"] != seeds["pairwise-scaled"]["model"]  # type: ignore[index]
    assert seeds["pairwise-1"]["rest"] == seeds["pairwise-scaled"]["rest"]  # type: ignore[index]


def test_an_older_folder_in_which_the_plain_original_is_not_told_compares_nothing_and_says_so(
    study: Study, tmp_path: Path
) -> None:
    plain = older(study, tmp_path / "plain")
    assert {found[1] for found in average_of(read_glue(plain).models).rows} == {"original-1"}
    folder = older(study, tmp_path / "glue", pairwise_1={"operator": "original"})
    built = build_report(Inputs(glue=folder))
    assert not [table for table in built.tables() if table.name == "glue-tests"]
    (told,) = [b.text for b in built.blocks() if isinstance(b, Paragraph) and "plain original" in b.text]
    assert told.startswith("Which of original-1, pairwise-1/step-00000006, pairwise-1/step-00000020 is the plain")
    assert not [b for b in glue_section(read_glue(plain).models, []).blocks if "plain original" in str(b)]
