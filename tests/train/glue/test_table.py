import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from train.glue.degenerate import LEAST_SPREAD, NO_CORRELATION, NO_SPREAD, ONE_ANSWER, degeneration
from train.glue.layouts import as_csv, as_document, as_latex, as_markdown, write_table
from train.glue.table import table_of
from train.glue.tasks import TASKS

A, B = "a" * 64, "b" * 64
ALL = {
    "mrpc": {"accuracy": 0.8, "f1": 0.9},
    "cola": {"matthews_correlation": 0.45},
    "mnli": {"accuracy": 0.81, "accuracy_mm": 0.82},
    "qqp": {"accuracy": 0.91, "f1": 0.87},
    "rte": {"accuracy": 0.6},
    "stsb": {"pearson": 0.88, "spearmanr": 0.86},
    "qnli": {"accuracy": 0.89},
    "sst2": {"accuracy": 0.91},
}
GRID: dict[str, Any] = {
    "protocol": {"epochs": 5},
    "checkpoints": {B: {"name": "base_pairwise", "model": "x"}, A: {"name": "base", "model": "y"}},
}


def cell(weights: str, task: str, seed: int, scores: dict[str, float] | None = None) -> dict[str, Any]:
    identity = {"weights": weights, "task": task, "seed": seed}
    predictions = {"validation": "0.5 1.5" if task == "stsb" else "01"}
    return {"identity": identity, "scores": scores or ALL.get(task), "predictions": predictions}


WHOLE = [cell(B, task, seed) for task in ALL for seed in (1, 2)]


def test_the_layout_is_that_of_table_3() -> None:
    head, _, row = as_markdown(table_of(WHOLE, GRID)).splitlines()
    assert head == "| model | GLUE (std) | mrpc | cola | mnli-m | mnli-mm | qqp | rte | stsb | qnli | sst2 |"
    assert row == (
        "| base_pairwise | 78.78 (0.00) | 85.00 | 45.00 | 81.00 | 82.00 | 89.00 | 60.00 | 87.00 | 89.00 | 91.00 |"
    )


def test_models_stand_in_the_order_in_which_they_came() -> None:
    table = table_of([cell(A, "rte", 1), *WHOLE], GRID)
    assert [row.name for row in table.rows] == ["base_pairwise", "base"]


def test_missing_tasks_are_named_and_the_average_says_how_many_it_holds() -> None:
    text = as_markdown(table_of([cell(A, "rte", 1), cell(A, "cola", 1)], GRID))
    assert "| base | 52.50 (–) | – | 45.00 | – | – | – | 60.00 | – | – | – |" in text
    assert "base: the average holds 2 of nine numbers; missing: mrpc, mnli-m, mnli-mm, qqp, stsb, qnli, sst2\n" in text


def test_another_average_is_said_beside_what_it_lacks() -> None:
    text = as_markdown(table_of([cell(A, "mnli", 1), cell(A, "rte", 1)], GRID, "tasks"))
    assert "| base | 70.75 (–) |" in text
    assert "base: the average holds 2 of eight tasks; missing: mrpc, cola, qqp, stsb, qnli, sst2\n" in text


def test_seeds_that_differ_between_tasks_are_named() -> None:
    text = as_markdown(table_of([*WHOLE, cell(B, "rte", 3)], GRID))
    assert "rte 1,2,3" in text
    assert "the average is over seeds 1,2\n" in text


def test_seeds_that_differ_between_models_are_named() -> None:
    cells = [cell(B, "rte", seed) for seed in (1, 2, 3)] + [cell(A, "rte", seed) for seed in (1, 2)]
    note = (
        "the models' averages are over different seeds: 1,2,3 of base_pairwise; 1,2 of base; "
        "symbert glue-compare takes those of both"
    )
    assert note in table_of(cells, GRID).notes()
    assert not any("different seeds" in note for note in table_of(cells[:2] + cells[3:], GRID).notes())


def test_wnli_gets_a_column_where_a_model_has_it() -> None:
    text = as_markdown(table_of([*WHOLE, cell(B, "wnli", 1, {"accuracy": 0.5})], GRID))
    assert text.splitlines()[0].endswith("| sst2 | wnli |")


def test_latex_is_a_booktabs_table_with_special_characters_escaped() -> None:
    text = as_latex(table_of(WHOLE, GRID))
    assert r"base\_pairwise & 78.78 (0.00) & 85.00" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {10}


def test_csv_holds_full_precision_and_empty_fields_for_what_is_missing() -> None:
    row, *others = csv.DictReader(io.StringIO(as_csv(table_of([cell(A, "mrpc", 1)], GRID))))
    assert not others
    assert float(row["mrpc"]) == (0.8 + 0.9) / 2
    assert (row["glue_std"], row["rte"], row["numbers"], row["seeds"]) == ("", "", "1", "1")


def test_models_of_one_name_are_told_apart_by_their_weights() -> None:
    grid = {**GRID, "checkpoints": {A: {"name": "x"}, B: {"name": "x"}}}
    table = table_of([cell(A, "rte", 1), cell(B, "rte", 1)], grid)
    assert [row.name for row in table.rows] == ["x (aaaaaaaaaaaa)", "x (bbbbbbbbbbbb)"]


def test_all_four_files_are_written_and_json_holds_every_seed(tmp_path: Path) -> None:
    write_table(tmp_path, WHOLE, GRID)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.json", "table.md", "table.tex"]
    (model,) = json.loads((tmp_path / "table.json").read_text())["models"]
    assert model["numbers"]["rte"] == {
        "mean": 0.6,
        "standard_deviation": 0.0,
        "median": 0.6,
        "minimum": 0.6,
        "maximum": 0.6,
        "seeds": {"1": 0.6, "2": 0.6},
    }
    assert model["missing"] == []


def test_runs_that_give_one_answer_to_everything_are_flagged_and_kept() -> None:
    good, bad = cell(A, "cola", 1, {"matthews_correlation": 0.4}), cell(A, "cola", 2, {"matthews_correlation": 0.0})
    bad["predictions"] = {"validation": "1111"}
    table = table_of([good, bad], GRID)
    assert table.rows[0].degenerate == {("cola", 2): ONE_ANSWER}
    note = "base: cola is degenerate under seed 2 (one answer to everything); 40.00 without, 20.00 with\n"
    assert note in as_markdown(table)
    note = "(one answer to everything); no other seed, so 0.00 is the score of degenerate runs\n"
    assert note in as_markdown(table_of([bad], GRID))


def test_degenerate_runs_on_noisy_sentences_are_flagged_in_the_noisy_row() -> None:
    one, other = cell(A, "cola", 1), cell(A, "cola", 2)
    one["noise"] = {"scores": {"matthews_correlation": 0.2}, "predictions": {"validation": "0110"}}
    other["noise"] = {"scores": {"matthews_correlation": 0.0}, "predictions": {"validation": "1110"}}
    table = table_of([one, other], {**GRID, "protocol": {"noise": "typos", "noise_rate": 0.1}})
    assert [row.degenerate for row in table.rows] == [{}, {("cola", 2): NO_CORRELATION}]
    note = "base, typos 0.1: cola is degenerate under seed 2 (a Matthews correlation of 0); 20.00 without, 10.00 with"
    assert note in table.notes()
    assert [model["degenerate"] for model in as_document(table)["models"]] == [[], ["cola-2"]]


def test_several_ways_of_being_degenerate_are_named_apart() -> None:
    runs = [cell(A, "cola", seed, {"matthews_correlation": 0.0}) for seed in (1, 2, 3)]
    runs[1]["predictions"] = {"validation": "1111"}
    (note, *_) = [note for note in table_of(runs, GRID).notes() if "degenerate" in note]
    assert "seed 1,3 (a Matthews correlation of 0), seed 2 (one answer to everything);" in note


def found(task: str, texts: dict[str, str], **scores: float) -> str:
    return degeneration(TASKS[task], {"predictions": texts, "scores": scores})


def test_one_answer_to_a_split_is_degenerate_and_a_mixture_of_classes_is_not() -> None:
    assert found("mnli", {"validation_matched": "012", "validation_mismatched": "000"}) == ONE_ANSWER
    assert not found("mnli", {"validation_matched": "012", "validation_mismatched": "010"})
    assert not found("massive", {"validation": "11 1"})
    assert found("massive", {"validation": "11 11"}) == ONE_ANSWER


def test_a_matthews_correlation_of_exactly_0_is_degenerate_though_predictions_are_mixed() -> None:
    assert found("cola", {"validation": "1110"}, matthews_correlation=0.0) == NO_CORRELATION
    assert not found("cola", {"validation": "1110"}, matthews_correlation=0.001)
    assert not found("rte", {"validation": "1110"}, accuracy=0.0)


def test_predictions_of_stsb_without_a_spread_are_degenerate() -> None:
    assert found("stsb", {"validation": "2.5 2.5 2.5"}) == ONE_ANSWER
    assert found("stsb", {"validation": "2.7 2.7000003 2.7000006 2.7"}) == NO_SPREAD
    assert found("stsb", {"validation": "2.5 nan 2.6"}) == NO_SPREAD
    assert not found("stsb", {"validation": "2.5 2.6 2.7"})
    predictions = np.random.default_rng(1).normal(2.5, 1, 500)
    for factor, expected in ((0.9, NO_SPREAD), (1.1, "")):
        scaled = predictions / predictions.std() * LEAST_SPREAD * factor
        assert found("stsb", {"validation": " ".join(map(str, scaled))}) == expected
