import csv
from collections import defaultdict
from pathlib import Path

import pytest

from tests.train.glue.test_table import cell
from train.glue.curve import line_of, run_curve
from train.glue.layouts import as_document, as_markdown, write_table
from train.glue.score import Summary, model_scores
from train.glue.table import table_of


@pytest.mark.shared
def test_the_authors_checkpoints_pass_the_line_of_figure_3_where_it_is_known(shared: Path) -> None:
    logs: dict[str, dict[int, dict[tuple[str, int], dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    with (shared / "reference/courtois2024/glue_per_checkpoint.csv").open() as file:
        for row in csv.DictReader(file):
            if row["size"] == "base":
                cells = logs[row["operator"]][int(row["step"])]
                cells.setdefault((row["task"], 1), {})[row["metric"]] = float(row["value"])
    curves = {}
    for operator, steps in logs.items():
        scores = {step: model_scores(cells).average for step, cells in steps.items()}
        curves[operator] = run_curve(operator, [(step, score) for step, score in scores.items() if score is not None])
    line = line_of(list(curves.values()))
    assert 100 * line == pytest.approx(75.1, abs=0.05)
    assert curves["pairwise"].passes(line) == pytest.approx(32_800, abs=50)
    assert curves["original"].passes(line) == pytest.approx(65_500, abs=50)
    assert curves["symmetric"].passes(line) is None


def grid(*steps: int) -> dict[str, object]:
    facts = {f"{step:064d}": {"name": f"run/step-{step:08d}", "run": "run", "step": step} for step in steps}
    return {"protocol": {}, "checkpoints": facts}


def points(scores: dict[int, float]) -> list[dict[str, object]]:
    return [cell(f"{step:064d}", "rte", 1, {"accuracy": score}) for step, score in scores.items()]


def test_a_table_of_several_checkpoints_says_where_the_line_is_passed(tmp_path: Path) -> None:
    scores = {100: 0.5, 200: 0.7, 400: 0.8}
    table = write_table(tmp_path, points(scores), grid(400, 100, 200))
    step = 200 + 200 * (0.95 * 0.8 - 0.7) / 0.1
    assert f"run passes 95 % of the best final score (76.00) at step {step:.0f}\n" in as_markdown(table)
    assert (tmp_path / "curve.csv").read_text().splitlines()[:2] == ["run,step,glue,glue_std,seeds", "run,100,0.5,,1"]
    assert as_document(table)["curves"] == [{"run": "run", "steps": [100, 200, 400], "glue": [0.5, 0.7, 0.8]}]


def test_one_checkpoint_makes_no_curve(tmp_path: Path) -> None:
    write_table(tmp_path, points({100: 0.5}), grid(100))
    assert not (tmp_path / "curve.csv").exists()
    assert table_of(points({100: 0.5}), grid(100)).curves() == []


def test_a_run_that_never_reaches_the_line_is_said_so() -> None:
    low = run_curve("low", [(10, Summary((1,), (0.2,))), (20, Summary((1,), (0.3,)))])
    high = run_curve("high", [(20, Summary((1,), (0.6,))), (10, Summary((1,), (0.59,)))])
    assert high.steps == (10, 20)
    assert low.passes(line_of([low, high])) is None
    assert high.passes(line_of([low, high])) == 10
