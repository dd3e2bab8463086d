import warnings

import pytest

from report.document import Bar, BarChart, Chart, DotChart, Dots, Histogram, LineChart, Part, Series
from report.draw import LETTERS, inline_svg, pdf, svg
from report.palette import colour_of

NAMES = [
    "original, learning_rate 0.003, warmup_steps 2, batch_size 4",
    "a$\\frac{$",
    "$\\foo$",
    "模型",
    "bert-base-pairwise-scaled-lr1e-4-batch256-warmup10k-seed-1",
]


def charts(name: str) -> list[Chart]:
    words = ("chart", "a caption", "a description", "step")
    return [
        LineChart(*words, "loss", [Series(name, "original", [0, 1, 2], [3.0, 2.0, 1.0])]),
        BarChart(*words, [Bar(name, 3.0, "3", "kept")]),
        DotChart(*words, [Dots(name, "original", [50.0, 60.0], 55.0, (40.0, 70.0))]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", range(3))
def test_any_name_is_drawn_as_it_is_or_cut(name: str, number: int) -> None:
    chart = charts(name)[number]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        text = svg(chart)
        assert pdf(chart).startswith(b"%PDF")
        assert inline_svg(chart).startswith("<svg")
    assert not heard
    assert name[: LETTERS - 10].replace("&", "&amp;") in text
    assert ("…" in text) == (len(name) > LETTERS)


@pytest.mark.parametrize("counts", [(5, 0, 1), (0, 0, 0)])
def test_a_part_of_a_histogram_stands_in_the_legend_in_its_colour_though_it_may_be_empty(
    counts: tuple[int, ...],
) -> None:
    parts = [Part("all", "kept", (1, 2, 3)), Part("some", "dropped", counts)]
    text = svg(Histogram("chart", "a caption", "a description", "bytes", "documents", (1, 10, 100, 1000), parts))
    assert "some" in text
    assert colour_of("dropped").light in text
    assert text.count(colour_of("kept").light) == 3 + 1
