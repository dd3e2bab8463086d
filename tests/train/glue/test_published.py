import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from tests.train.glue.test_table import GRID, WHOLE
from train.glue.layouts import as_csv, as_document, as_latex, as_markdown
from train.glue.published import read_published
from train.glue.score import model_scores
from train.glue.table import Table, table_of
from train.glue.tasks import NUMBERS

SHARED = Path(__file__).parents[4] / "shared" / "data" / "reference" / "courtois2024" / "glue_per_seed.csv"


@pytest.fixture
def table() -> Table:
    return replace(table_of(WHOLE, GRID), published=read_published())


def test_each_published_average_is_the_mean_of_its_nine_numbers() -> None:
    scores = {row.name: round(100 * row.average("nine")[0], 2) for row in read_published().rows}
    assert scores == {
        "small, original (Courtois et al., 2024)": 72.72,
        "small, symmetric (Courtois et al., 2024)": 69.61,
        "small, pairwise (Courtois et al., 2024)": 73.38,
        "base, original (Courtois et al., 2024)": 78.74,
        "base, symmetric (Courtois et al., 2024)": 74.82,
        "base, pairwise (Courtois et al., 2024)": 79.36,
    }


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared/data")
def test_the_shipped_figures_are_those_of_the_authors_logs() -> None:
    cells: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for row in csv.DictReader(io.StringIO(SHARED.read_text())):
        key = f"{row['size']}, {row['operator']} (Courtois et al., 2024)"
        cells.setdefault(key, {}).setdefault((row["task"], int(row["seed"])), {})[row["metric"]] = float(row["value"])
    for published in read_published().rows:
        found = model_scores(cells[published.name])
        assert found.average is not None
        assert found.average.standard_deviation == pytest.approx(published.standard_deviation, abs=6e-5)
        for number in NUMBERS:
            assert found.numbers[number].mean == pytest.approx(published.numbers[number], abs=6e-5)


def test_published_rows_stand_below_ones_own_with_their_source(table: Table) -> None:
    text = as_markdown(table)
    lines = text.splitlines()
    assert lines[2].startswith("| base_pairwise |")
    assert lines[-len(table.notes()) * 2 - 1].startswith(
        "| base, pairwise (Courtois et al., 2024) | 79.36 (0.37) | 87.83 |"
    )
    assert "published, Courtois et al. (2024, arXiv 2406.06366), Table 3: " in text
    assert "published, Kowsher et al. (2024, arXiv 2412.00359), abstract: " in text
    assert as_latex(table).count(r"\midrule") == 2
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert rows[-1]["model"] == "base, pairwise (Courtois et al., 2024)"
    assert float(rows[-1]["cola"]) == pytest.approx(0.4691)
    document = json.loads(json.dumps(as_document(table)))
    assert len(document["published"]) == 6
    assert len(document["models"]) == len(table.rows)


def test_another_average_of_published_numbers_has_no_deviation(table: Table) -> None:
    by_task = replace(table, average="tasks")
    (row,) = (row for row in read_published().rows if row.name.startswith("base, pairwise"))
    numbers = [row.numbers[number] for number in NUMBERS if not number.startswith("mnli")]
    expected = fmean([*numbers, fmean([row.numbers["mnli_m"], row.numbers["mnli_mm"]])])
    assert f"| base, pairwise (Courtois et al., 2024) | {100 * expected:.2f} (–) |" in as_markdown(by_task)


def test_an_average_that_lacks_wnli_says_so_of_the_published_rows(table: Table) -> None:
    leaderboard = replace(table, average="leaderboard")
    note = "published: the average holds 8 of nine tasks; missing: wnli"
    assert note in leaderboard.notes()
    *_, row = csv.DictReader(io.StringIO(as_csv(leaderboard)))
    assert row["numbers"] == "8"
    assert "wnli" not in as_document(leaderboard)["published"][0]["averaged"]
    for whole, numbers in (("nine", "9"), ("tasks", "8")):
        assert not any("published: the average" in note for note in replace(table, average=whole).notes())
        *_, row = csv.DictReader(io.StringIO(as_csv(replace(table, average=whole))))
        assert row["numbers"] == numbers


def test_without_being_asked_for_nothing_is_shown() -> None:
    assert "Courtois" not in as_markdown(table_of(WHOLE, GRID))
