import warnings

import pytest

from report.document import Bar, BarChart, Chart, DotChart, Dots, LineChart, Series
from report.draw import LETTERS, inline_svg, pdf, svg

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
