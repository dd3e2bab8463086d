from pathlib import Path

import pytest

from report.build import Inputs, build_report
from report.document import LineChart, Report
from report.page import page
from tests.report.test_build import table

pytestmark = pytest.mark.shared

FIGURE_2 = {
    "base": {
        "original": (5.990, 5.910, 5.850, 3.539, 2.210, 1.853, 1.683),
        "symmetric": (5.988, 5.908, 3.009, 2.492, 2.218, 1.946, 1.788),
        "pairwise": (6.015, 4.210, 2.669, 2.293, 2.069, 1.828, 1.681),
    },
    "small": {
        "original": (6.087, 5.680, 3.736, 3.085, 2.560, 2.315, 2.198),
        "symmetric": (6.122, 5.178, 3.847, 3.049, 2.723, 2.475, 2.352),
        "pairwise": (5.936, 3.869, 3.057, 2.727, 2.527, 2.329, 2.223),
    },
}
FIGURE_2_STEPS = (10_000, 14_000, 20_000, 30_000, 50_000, 100_000, 200_000)
BELOW_5_5 = {"base": [27_750, 15_000, 13_000], "small": [14_750, 13_750, 10_750]}

# GLUE (std) mrpc cola mnli-m mnli-mm qqp rte stsb qnli sst2
TABLE_3 = {
    "small, original": "72.72 0.07 81.04 21.39 77.16 77.76 86.08 54.87 82.20 85.45 88.49",
    "small, symmetric": "69.61 0.32 76.81 10.29 75.25 75.72 85.13 55.74 77.83 82.79 86.90",
    "small, pairwise": "73.38 0.37 82.34 24.21 76.37 76.89 86.67 56.25 84.13 84.97 88.60",
    "base, original": "78.74 0.63 85.30 44.35 81.66 82.07 88.86 59.42 87.30 88.76 90.92",
    "base, symmetric": "74.82 0.36 78.36 35.22 78.66 79.05 87.70 53.43 84.47 86.90 89.56",
    "base, pairwise": "79.36 0.37 87.83 46.91 81.60 82.02 88.89 60.58 86.88 88.78 90.78",
}
TABLE_3_COLUMNS = ["glue", "glue_std", "mrpc", "cola", "mnli_m", "mnli_mm", "qqp", "rte", "stsb", "qnli", "sst2"]


@pytest.fixture(scope="module")
def published(shared: Path) -> Report:
    return build_report(Inputs(published=shared / "reference" / "courtois2024"))


@pytest.mark.parametrize("size", ["small", "base"])
def test_figure_2_has_the_papers_losses(published: Report, size: str) -> None:
    found = table(published, f"loss-published-{size}")
    keys = [column.key for column in found.columns]
    for row in found.rows:
        losses = [row[keys.index(f"step_{step}")] for step in FIGURE_2_STEPS]
        assert losses == pytest.approx(FIGURE_2[size][str(row[0])], abs=0.0006)
    (chart,) = [chart for chart in published.charts() if chart.name == f"loss-published-{size}"]
    assert isinstance(chart, LineChart)
    assert [len(series.x) for series in chart.series] == [800] * 3


@pytest.mark.parametrize("size", ["small", "base"])
def test_figure_2s_plateau_ends_where_the_paper_has_it(published: Report, size: str) -> None:
    found = table(published, f"steps-published-{size}")
    keys = [column.key for column in found.columns]
    assert [row[0] for row in found.rows] == ["original", "symmetric", "pairwise"]
    assert [row[keys.index("below_5.5")] for row in found.rows] == BELOW_5_5[size]
    assert [row[keys.index("plateau_end")] for row in found.rows] == BELOW_5_5[size]
    if size == "base":
        assert [row[keys.index("below_1.8")] for row in found.rows] == [114_000, 169_250, 107_250]
        assert [row[keys.index("stays_below")] for row in found.rows] == [117_000, 196_500, 115_750]


def test_table_3_has_the_papers_numbers(published: Report) -> None:
    found = table(published, "glue-published")
    keys = [column.key for column in found.columns]
    shown = {row[0]: " ".join(row[keys.index(key)] for key in TABLE_3_COLUMNS) for row in found.texts()}
    assert shown == TABLE_3


def test_the_differences_have_the_papers_significance(published: Report) -> None:
    found = table(published, "glue-published-tests")
    keys = [column.key for column in found.columns]
    base = next(row for row in found.rows if row[0] == "base, pairwise")
    small = next(row for row in found.rows if row[0] == "small, pairwise")

    def numbers(row: object, *names: str) -> list[object]:
        assert isinstance(row, list)
        return [row[keys.index(name)] for name in names]

    wanted = ("welch_t", "welch_df", "welch_p", "paired_p", "wilcoxon_p")
    assert numbers(base, *wanted) == pytest.approx([1.92, 6.5, 0.10, 0.039, 0.0625], abs=0.03)
    assert numbers(base, "paired_p") == pytest.approx([0.039], abs=0.0005)
    assert numbers(small, "welch_t", "welch_p", "paired_p") == pytest.approx([3.89, 0.015, 0.015], abs=0.005)
    tasks = {row[0]: row for row in table(published, "glue-published-by-task").texts()}
    places = [column.heading for column in table(published, "glue-published-by-task").columns]
    gain = places.index("base, pairwise − base, original")
    assert [tasks[task][gain] for task in ("mrpc", "cola", "rte")] == ["+2.53", "+2.56", "+1.16"]


def test_figure_3_passes_the_95_per_cent_line_where_the_paper_does(published: Report) -> None:
    found = table(published, "checkpoints-published")
    keys = [column.key for column in found.columns]
    by_model = {row[0]: row for row in found.rows}
    crossing, repaired = keys.index("crossing"), keys.index("crossing_repaired")
    assert by_model["base, pairwise"][crossing] == pytest.approx(32_800, abs=50)
    assert by_model["base, original"][crossing] == pytest.approx(65_500, abs=50)
    assert by_model["base, original"][repaired] == pytest.approx(54_010, abs=50)
    assert by_model["base, symmetric"][crossing] is None
    assert any("step 50,000: CoLA's Matthews correlation is 0" in note for note in found.notes)


def test_the_page_shows_all_of_it(published: Report) -> None:
    shown = page(published)
    for line in TABLE_3.values():
        for number in line.split():
            assert f">{number}<" in shown
    for losses in FIGURE_2.values():
        assert f">{losses['pairwise'][-1]:.3f}<" in shown
    assert shown.count('<svg role="img"') == 4
