import csv
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from durable.files import file_sha256, write_json
from tests.train.glue.conftest import CheckpointFactory
from tests.train.glue.test_table import cell
from train.checkpoint import checkpoint_folder
from train.glue.curve import Point, curves_of, line_of, run_curve
from train.glue.grid import run_grid
from train.glue.layouts import as_document, as_markdown, write_table
from train.glue.names import names_of
from train.glue.protocol import Protocol
from train.glue.request import Request
from train.glue.score import Summary, model_scores
from train.glue.table import table_of
from train.glue.tasks import TASKS


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
        found, notes = curves_of({operator: [Point(step, model_scores(cells)) for step, cells in steps.items()]})
        (curves[operator],) = found
        assert notes == []
    line = line_of(list(curves.values()))
    assert 100 * line == pytest.approx(75.1, abs=0.05)
    assert curves["pairwise"].passes(line) == pytest.approx(32_800, abs=50)
    assert curves["original"].passes(line) == pytest.approx(65_500, abs=50)
    assert curves["symmetric"].passes(line) is None


def facts(step: int, folder: str = "/a/run") -> dict[str, object]:
    return {"name": f"run/step-{step:08d}", "run": "run", "run_folder": folder, "step": step, "model": "m"}


def grid(*steps: int) -> dict[str, object]:
    return {"protocol": {}, "checkpoints": {f"{step:064d}": facts(step) for step in steps}}


def points(scores: dict[int, float]) -> list[dict[str, object]]:
    return [cell(f"{step:064d}", "rte", 1, {"accuracy": score}) for step, score in scores.items()]


def test_a_table_of_several_checkpoints_says_where_the_line_is_passed(tmp_path: Path) -> None:
    scores = {100: 0.5, 200: 0.7, 400: 0.8}
    table = write_table(tmp_path, points(scores), grid(400, 100, 200))
    step = 200 + 200 * (0.95 * 0.8 - 0.7) / 0.1
    assert f"run passes 95 % of the best final score (76.00) at step {step:.0f}\n" in as_markdown(table)
    assert (tmp_path / "curve.csv").read_text().splitlines()[:2] == [
        "run,step,glue,glue_std,seeds,weights",
        f"run,100,0.5,,1,{100:064d}",
    ]
    weights = [f"{step:064d}" for step in scores]
    assert as_document(table)["curves"] == [
        {"run": "run", "steps": [100, 200, 400], "glue": [0.5, 0.7, 0.8], "weights": weights}
    ]


def test_one_checkpoint_makes_no_curve(tmp_path: Path) -> None:
    write_table(tmp_path, points({100: 0.5}), grid(100))
    assert not (tmp_path / "curve.csv").exists()
    assert table_of(points({100: 0.5}), grid(100)).curves() == []


def test_a_curve_that_is_no_more_leaves_no_file(tmp_path: Path) -> None:
    write_table(tmp_path, points({100: 0.5, 200: 0.6}), grid(100, 200))
    assert (tmp_path / "curve.csv").exists()
    write_table(tmp_path, points({100: 0.5}), grid(100, 200))
    assert not (tmp_path / "curve.csv").exists()


def test_two_runs_of_one_name_have_a_curve_each_and_are_told_apart(tmp_path: Path) -> None:
    scores = {("a", 100): 0.5, ("a", 200): 0.6, ("b", 100): 0.7, ("b", 200): 0.8}
    checkpoints = {f"{place}{step:063d}": facts(step, f"/{place}/run") for place, step in scores}
    cells = [cell(f"{place}{step:063d}", "rte", 1, {"accuracy": score}) for (place, step), score in scores.items()]
    table = write_table(tmp_path, cells, {"protocol": {}, "checkpoints": checkpoints})
    assert {curve.run: curve.means for curve in table.curves()} == {
        "run (a00000000000)": [0.5, 0.6],
        "run (b00000000000)": [0.7, 0.8],
    }
    assert [line.split(",")[:3] for line in (tmp_path / "curve.csv").read_text().splitlines()[1:]] == [
        ["run (a00000000000)", "100", "0.5"],
        ["run (a00000000000)", "200", "0.6"],
        ["run (b00000000000)", "100", "0.7"],
        ["run (b00000000000)", "200", "0.8"],
    ]
    assert "run (a00000000000) passes 95 % of the best final score (76.00) not within 200 steps" in table.notes()
    assert "run (b00000000000) passes 95 % of the best final score (76.00) at step 160" in table.notes()
    assert "run (b00000000000) is the run in /b/run" in table.notes()
    assert not any("is the run in" in note for note in table_of(points({100: 0.5}), grid(100)).notes())


def trained(run: Path, model: Path, seed: int) -> Path:
    """A run folder with checkpoints at steps 100 and 200, whose weights are the model's and some noise."""
    generator = torch.Generator().manual_seed(seed)
    for step in (100, 200):
        folder = shutil.copytree(model, checkpoint_folder(run, step))
        weights = load_file(folder / "model.safetensors")
        noisy = {name: value + 0.01 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
        save_file(noisy, folder / "model.safetensors", {"format": "pt"})
        files = {path.name: file_sha256(path) for path in folder.iterdir()}
        write_json(folder / "state.json", {"format_version": 1, "step": step, "files": files, "scaler": {}})
    return run


def test_runs_kept_under_equal_names_are_told_apart_by_their_folders(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    request = Request(
        checkpoints=[trained(tmp_path / place / "run", checkpoint(), seed) for seed, place in enumerate("ab")],
        out=tmp_path / "out",
        tasks=[TASKS["rte"]],
        seeds=[1],
        protocol=Protocol(epochs=1),
        data_dir=glue,
        which="all",
        device="cpu",
        workers=1,
    )
    curves = run_grid(request).table.curves()
    assert [curve.steps for curve in curves] == [(100, 200), (100, 200)]
    assert len({curve.run for curve in curves}) == 2
    for curve in curves:
        assert curve.run == f"run ({curve.weights[-1][:12]})"
    again = replace(request, checkpoints=[tmp_path / "b" / "run"], which="last")
    assert [curve.run for curve in run_grid(again).table.curves()] == [curve.run for curve in curves]


def test_a_checkpoint_shows_its_hash_where_another_run_has_its_runs_name() -> None:
    checkpoints = {"a" * 64: facts(100, "/a/run"), "b" * 64: facts(200, "/b/run"), "c" * 64: {"name": "bert"}}
    assert list(names_of(checkpoints).values()) == [
        "run/step-00000100 (aaaaaaaaaaaa)",
        "run/step-00000200 (bbbbbbbbbbbb)",
        "bert",
    ]


def test_two_checkpoints_of_one_step_make_no_curve() -> None:
    checkpoints = {"a" * 64: facts(100), "b" * 64: facts(100), "c" * 64: facts(200)}
    cells = [cell(weights, "rte", 1, {"accuracy": 0.5}) for weights in checkpoints]
    table = table_of(cells, {"protocol": {}, "checkpoints": checkpoints})
    assert table.curves() == []
    assert "run: no curve, since there is more than one checkpoint of step 100" in table.notes()


def test_the_points_of_a_curve_hold_the_numbers_and_seeds_that_all_of_them_have() -> None:
    first, last = f"{100:064d}", f"{200:064d}"
    cola = {(first, 1): 0.10, (first, 2): 0.30, (last, 1): 0.12, (last, 3): 0.9}
    cells = [cell(w, "cola", seed, {"matthews_correlation": score}) for (w, seed), score in cola.items()]
    cells.append(cell(last, "rte", 1, {"accuracy": 0.6}))
    table = table_of(cells, grid(100, 200))
    (curve,) = table.curves()
    assert curve.means == [0.10, 0.12]
    assert [score.seeds for score in curve.scores] == [(1,), (1,)]
    assert "the curves hold 1 of nine numbers, those of all checkpoints; left out: rte" in table.notes()
    assert "run: the curve is over seed 1, which all its checkpoints have; left out: 2,3" in table.notes()
    step = 100 + 100 * (0.95 * 0.12 - 0.10) / 0.02
    assert f"run passes 95 % of the best final score (11.40) at step {step:.0f}" in table.notes()


def test_checkpoints_without_a_common_number_or_seed_make_no_curve() -> None:
    first, last = f"{100:064d}", f"{200:064d}"
    apart = [cell(first, "rte", 1), cell(last, "cola", 1)]
    table = table_of(apart, grid(100, 200))
    assert table.curves() == []
    assert "no curve, since the checkpoints have none of the nine numbers in common" in table.notes()
    table = table_of([cell(first, "rte", 1), cell(last, "rte", 2)], grid(100, 200))
    assert table.curves() == []
    assert "run: no curve, since its checkpoints have no seed in common" in table.notes()


def test_a_run_that_never_reaches_the_line_is_said_so() -> None:
    low = run_curve("low", [(10, Summary((1,), (0.2,)), "a"), (20, Summary((1,), (0.3,)), "b")])
    high = run_curve("high", [(20, Summary((1,), (0.6,)), "d"), (10, Summary((1,), (0.59,)), "c")])
    assert high.weights == ("c", "d")
    assert high.steps == (10, 20)
    assert low.passes(line_of([low, high])) is None
    assert high.passes(line_of([low, high])) == 10
