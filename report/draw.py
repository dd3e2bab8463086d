"""Charts drawn with matplotlib: SVG for the page, SVG and PDF for a paper. The same chart gives the same bytes.

In the page's SVG every colour is a CSS variable, so that a chart follows the reader's light or dark mode, and text
stays text: it can be searched, read aloud and set in the page's own font.
"""

import io
import itertools
import re
import warnings
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from report.document import BarChart, Chart, DotChart, Histogram, LineChart, Series
from report.palette import DASHES, GRID, INK, MUTED, SURFACE, colour_of, colours, marker_of

# One panel as wide as a phone: two stand side by side on a desk, and text keeps its size on both.
WIDTH, HEIGHT = 4.9, 3.7
ROW = 0.42
FONT = 11.0
LETTER = 0.08
"""Inches that one letter of FONT takes, rounded up."""
LETTERS = 28
"""As much of a name as leaves the panel half of its width; tables and descriptions have the whole of it."""
# Evaluations in the first two per cent of the steps may lie far above all others; the axis begins below them.
FIRST_SHARE = 0.02

SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": FONT,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "axes.edgecolor": MUTED.light,
    "axes.labelcolor": INK.light,
    "text.color": INK.light,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "text.parse_math": False,  # a name with a dollar sign is no formula
}


def svg(chart: Chart) -> str:
    """The chart as a complete SVG document, in the colours of paper."""
    return _rendered(chart, "svg").decode()


def pdf(chart: Chart) -> bytes:
    """The chart as a PDF of one page; fonts are embedded."""
    return _rendered(chart, "pdf")


def inline_svg(chart: Chart) -> str:
    """The chart as an element of an HTML page: no fixed size, colours as variables, names of its own, a description."""
    text = svg(chart)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour in colours():
        text = text.replace(colour.light, f"var(--{colour.name})")
    # Ids have to be unique on the page, and matplotlib counts from 1 in every drawing.
    text = re.sub(r'\bid="', f'id="{chart.name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{chart.name}-", text)
    head = (
        f'<svg role="img" aria-labelledby="{chart.name}-title {chart.name}-description" '
        f'viewBox="{_view_box(text)}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{chart.name}-title">{escape(chart.caption)}</title>'
        f'<desc id="{chart.name}-description">{escape(chart.description)}</desc>'
    )
    return head + text[text.index(">") + 1 :].strip()


def _view_box(text: str) -> str:
    found = re.search(r'viewBox="([^"]+)"', text)
    assert found, "matplotlib writes a viewBox"
    return found[1]


def _rendered(chart: Chart, kind: str) -> bytes:
    file = io.BytesIO()
    settings: Any = {**SETTINGS, "svg.hashsalt": chart.name}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # An SVG's text is set by the reader's own fonts; a PDF shows a box in its place.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = _figure(chart)
        no_date = {"Date": None} if kind == "svg" else {"CreationDate": None}
        figure.savefig(file, format=kind, metadata=no_date, transparent=True)
    return file.getvalue()


def _figure(chart: Chart) -> Figure:
    match chart:
        case LineChart():
            return _lines(chart)
        case BarChart():
            return _bars(chart)
        case DotChart():
            return _dots(chart)
        case Histogram():
            return _histogram(chart)


def _lines(chart: LineChart) -> Figure:
    labelled = [series for series in chart.series if not series.is_background]
    room = _room(series.label for series in labelled) + 0.12
    figure, axes = _panel(HEIGHT, left=0.62, right=room)
    low, high = _limits(chart)
    for place, series in enumerate(chart.series):
        _line(axes, series, place)
    for level in chart.levels:
        axes.axhline(level.y, color=MUTED.light, linewidth=1.1, linestyle=(0, (2, 2)))
        axes.annotate(
            level.label, (1, level.y), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", color=MUTED.light, fontsize=FONT - 1,
        )  # fmt: skip
    for mark in chart.marks:
        axes.plot(mark.x, mark.y, "o", markersize=11, fillstyle="none", markeredgewidth=1.8,
                  color=colour_of(mark.style).light, zorder=5)  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_xlim(0, chart.x_limit or max(series.x[-1] for series in chart.series))
    axes.set_xlabel(chart.x_label)
    axes.set_title(chart.y_label, loc="left", fontsize=FONT, color=INK.light, pad=8)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    _end_labels(axes, labelled, low, high)
    return figure


def _fitted(label: str) -> str:
    return label if len(label) <= LETTERS else label[: LETTERS - 1].rstrip(" ,-_") + "…"


def _room(labels: Iterable[str]) -> float:
    """Inches that the longest label takes as it is drawn."""
    return LETTER * max((len(_fitted(label)) for label in labels), default=0)


def _panel(height: float, *, left: float, right: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; margins in inches."""
    figure = Figure(figsize=(WIDTH, height))
    bottom, top = 0.62, 0.36
    rectangle = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - bottom - top) / height)
    axes = figure.add_axes(rectangle)
    axes.tick_params(labelsize=FONT - 1, length=3)
    return figure, axes


def _line(axes: Axes, series: Series, place: int) -> None:
    colour = colour_of(series.style).light
    if series.is_background:
        axes.plot(series.x, series.y, color=colour, linewidth=1.0, alpha=0.45, zorder=1.5)
        return
    every = max(1, len(series.x) // 7)
    first = min(place * every // 4, len(series.x) - 1)
    axes.plot(
        series.x, series.y, color=colour, linewidth=1.9, linestyle=DASHES[series.variant % len(DASHES)],
        marker=marker_of(series.style), markersize=6, markevery=(first, every), markeredgecolor=SURFACE.light,
        markeredgewidth=0.9, zorder=3,
    )  # fmt: skip
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)


def _limits(chart: LineChart) -> tuple[float, float]:
    """The y-axis: all that lies after the first steps, the levels, and some air."""
    last = chart.x_limit or max(series.x[-1] for series in chart.series)
    values = [level.y for level in chart.levels] + [mark.y for mark in chart.marks]
    for series in chart.series:
        kept = [y for x, y in zip(series.x, series.y, strict=True) if FIRST_SHARE * last <= x <= last]
        values += kept or series.y
        values += [] if series.high is None or not kept else series.high[-len(kept) :]
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _end_labels(axes: Axes, labelled: Sequence[Series], low: float, high: float) -> None:
    """The name of each line at its end, moved apart where they would lie on each other."""
    gap = 0.066 * (high - low)
    ends = [min(max(series.y[-1], low), high) for series in labelled]
    for series, y in zip(labelled, spread(ends, gap), strict=True):
        axes.annotate(
            _fitted(series.label), (1, y), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=colour_of(series.style).light, annotation_clip=False,
        )  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places moved as little as need be for neighbours to be `gap` apart, their order kept."""
    order = sorted(range(len(places)), key=lambda index: (places[index], index))
    # Clusters of labels that touch, each around the mean of what it holds; merged until none touch.
    clusters: list[list[int]] = []
    for index in order:
        clusters.append([index])
        while len(clusters) > 1 and _bottom(clusters[-1], places, gap) - _top(clusters[-2], places, gap) < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    moved = list(places)
    for cluster in clusters:
        for rank, index in enumerate(cluster):
            moved[index] = _bottom(cluster, places, gap) + rank * gap
    return moved


def _bottom(cluster: Sequence[int], places: Sequence[float], gap: float) -> float:
    return sum(places[index] for index in cluster) / len(cluster) - (len(cluster) - 1) * gap / 2


def _top(cluster: Sequence[int], places: Sequence[float], gap: float) -> float:
    return _bottom(cluster, places, gap) + (len(cluster) - 1) * gap


def _bars(chart: BarChart) -> Figure:
    left = _room(bar.label for bar in chart.bars) + 0.2
    figure, axes = _panel(ROW * len(chart.bars) + 1.05, left=left, right=0.85)
    for place, bar in enumerate(chart.bars):
        axes.barh(place, bar.value, left=bar.start, height=0.62, color=colour_of(bar.style).light)
        axes.annotate(
            bar.text, (bar.start + bar.value, place), (5, 0), textcoords="offset points", va="center",
            annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(chart.bars)), [_fitted(bar.label) for bar in chart.bars], color=INK.light, fontsize=FONT)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(chart.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.grid(axis="x")
    return figure


def _dots(chart: DotChart) -> Figure:
    left = _room(row.label for row in chart.rows) + 0.2
    figure, axes = _panel(ROW * len(chart.rows) + 1.05, left=left, right=0.8)
    for place, row in enumerate(chart.rows):
        colour = colour_of(row.style).light
        if row.interval is not None:
            axes.plot(row.interval, [place, place], color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
        axes.plot(row.values, [place] * len(row.values), "o", color=colour, markersize=4.5, alpha=0.75)
        axes.plot(row.mean, place, marker_of(row.style), color=colour, markersize=10, markeredgecolor=SURFACE.light)
        axes.annotate(
            f"{row.mean:.2f}", (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=colour, annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(chart.rows)), [_fitted(row.label) for row in chart.rows], color=INK.light, fontsize=FONT)
    axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(chart.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x")
    return figure


def _histogram(chart: Histogram) -> Figure:
    figure, axes = _panel(HEIGHT, left=0.62, right=0.2)
    widths = [high - low for low, high in itertools.pairwise(chart.edges)]
    below = [0] * len(widths)
    for part in chart.parts:
        # A bar costs 1 ms, seen or not; one stays for the legend.
        bars = list(zip(chart.edges, part.counts, widths, below, strict=False))
        lefts, heights, bar_widths, bottoms = zip(*([bar for bar in bars if bar[1]] or bars[:1]), strict=True)
        axes.bar(
            lefts, heights, bar_widths, bottom=bottoms, align="edge", color=colour_of(part.style).light,
            edgecolor=SURFACE.light, linewidth=0.4, label=part.label,
        )  # fmt: skip
        below = [under + count for under, count in zip(below, part.counts, strict=True)]
    top = max([*below, 1])
    for threshold in chart.thresholds:
        axes.vlines(threshold.x, 0, 1.02 * top, color=INK.light, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.annotate(
            threshold.label, (threshold.x, 1.02 * top), (0, 2), textcoords="offset points", ha="center", va="bottom",
            color=INK.light, fontsize=FONT - 1, annotation_clip=False,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(chart.edges[0], chart.edges[-1])
    # Room above the highest bar for the names of the thresholds and of the parts.
    axes.set_ylim(0, top * (1.14 + 0.11 * len(chart.parts)))
    axes.set_xlabel(chart.x_label)
    axes.set_title(chart.y_label, loc="left", fontsize=FONT, color=INK.light, pad=8)
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.legend(loc="upper right", frameon=False, fontsize=FONT - 1, labelcolor=INK.light, borderaxespad=0.0)
    return figure


def _short(value: float, _: int) -> str:
    """150000 → 150k: axis labels have little room."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
