"""What a report says, apart from how it is written: sections of paragraphs, tables, charts and commands.

The builders fill these; the writers (page, text) turn them into HTML, Markdown, LaTeX, CSV and JSON, and
`report.draw` turns the charts into SVG and PDF. Nothing here imports more than the standard library.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | int | float | None
NONE = "–"


@dataclass(frozen=True)
class Column:
    """One column of a table: how it is called, and how a value reads."""

    key: str
    """Its name in CSV and JSON."""
    heading: str
    """Its name for readers."""
    form: Callable[[Value], str] | None = None
    """Turns a value into text; None marks a column of words, aligned left."""
    is_long: bool = False
    """A column of whole sentences or addresses: it is given room, and broken anywhere."""

    @property
    def numeric(self) -> bool:
        return self.form is not None

    def text(self, value: Value) -> str:
        """The value as a reader sees it; a missing one is a dash."""
        if value is None or value == "":
            return NONE
        return str(value) if self.form is None else self.form(value)


@dataclass(frozen=True)
class Table:
    """Rows of values under columns; the first column names the row."""

    name: str
    """Its file name in CSV and LaTeX, and its key in JSON."""
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()
    """What a reader must know beside the numbers."""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), f"table {self.name} has ragged rows"

    def texts(self) -> Iterator[list[str]]:
        """The rows as readers see them."""
        for row in self.rows:
            yield [column.text(value) for column, value in zip(self.columns, row, strict=True)]


@dataclass(frozen=True)
class Series:
    """One line of a chart; `x` ascends."""

    label: str
    style: str
    """What it stands for, which decides colour, dashes and marker: an operator's name, or any other word."""
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    """The band around the line, such as the smallest and largest of several seeds."""
    variant: int = 0
    """Tells settings of one style apart, by dashes."""
    is_background: bool = False
    """A published curve, drawn thin behind the others."""


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as the unigram entropy."""

    y: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point worth a word, such as the end of a plateau."""

    x: float
    y: float
    style: str
    label: str = ""


@dataclass(frozen=True)
class LineChart:
    """Lines over training steps."""

    name: str
    caption: str
    description: str
    """What it shows, in words: the text alternative."""
    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    marks: Sequence[Mark] = ()
    x_limit: float | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: `value` long, from `start`; a `style` as in Series."""

    label: str
    value: float
    text: str
    style: str
    start: float = 0.0


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars with their values written at them, such as a funnel."""

    name: str
    caption: str
    description: str
    x_label: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Part:
    """What a histogram stacks: a count for each bin, in a `style` as in Series."""

    label: str
    style: str
    counts: Sequence[int]


@dataclass(frozen=True)
class Threshold:
    """A vertical line, such as a bound of a filter."""

    x: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of a logarithmic axis, parts stacked; values beyond the outer edges are in the outer bins."""

    name: str
    caption: str
    description: str
    x_label: str
    y_label: str
    edges: Sequence[float]
    parts: Sequence[Part]
    thresholds: Sequence[Threshold] = ()

    def __post_init__(self) -> None:
        assert all(len(part.counts) == len(self.edges) - 1 for part in self.parts), f"{self.name} has ragged parts"


@dataclass(frozen=True)
class Dots:
    """One row of a dot chart: every value, their mean, and the interval around it where there is one."""

    label: str
    style: str
    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class DotChart:
    """Rows of dots, such as one GLUE score a seed."""

    name: str
    caption: str
    description: str
    x_label: str
    rows: Sequence[Dots]


Chart: TypeAlias = LineChart | BarChart | DotChart | Histogram


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Charts:
    """Charts that stand side by side where there is room."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Definitions:
    """Terms and what they mean here, such as the assumptions of a run."""

    name: str
    title: str
    entries: Mapping[str, str]


Block: TypeAlias = Paragraph | Table | Charts | Commands | Definitions


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Fact:
    """One of the few numbers at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    title: str
    lead: str
    facts: Sequence[Fact] = ()
    sections: Sequence[Section] = field(default=())

    def blocks(self) -> Iterator[Block]:
        for section in self.sections:
            yield from section.blocks

    def tables(self) -> list[Table]:
        """Every table, in the order of the page."""
        return [block for block in self.blocks() if isinstance(block, Table)]

    def charts(self) -> list[Chart]:
        """Every chart, in the order of the page."""
        return [chart for block in self.blocks() if isinstance(block, Charts) for chart in block.charts]


def count(value: Value) -> str:
    """1234567 → 1,234,567."""
    assert isinstance(value, int | float)
    return f"{value:,.0f}"


def decimals(digits: int, *, signed: bool = False) -> Callable[[Value], str]:
    """A number with so many digits after the point, and with its sign where it is a difference."""

    def form(value: Value) -> str:
        assert isinstance(value, int | float)
        return f"{value:{'+' if signed else ''},.{digits}f}".replace("-", "−")

    return form


def percent(digits: int, *, signed: bool = False) -> Callable[[Value], str]:
    """A share of 1 as so many per cent, without the sign %: the heading or the caption says it."""
    number = decimals(digits, signed=signed)

    def form(value: Value) -> str:
        assert isinstance(value, int | float)
        return number(100 * value)

    return form


def probability(value: Value) -> str:
    """A p-value: three digits after the point; what is smaller is said to be smaller."""
    assert isinstance(value, int | float)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
