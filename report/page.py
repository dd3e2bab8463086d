"""The report as one HTML page that needs nothing else: no script, no request, styles and charts inside."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from report.document import Block, Chart, Charts, Commands, Definitions, Paragraph, Report, Table
from report.draw import inline_svg
from report.palette import colours

KINDS: dict[type, str] = {
    Paragraph: "paragraph",
    Table: "table",
    Charts: "charts",
    Commands: "commands",
    Definitions: "definitions",
}


def page(report: Report) -> str:
    """The complete page. Everything from the folders (names, hosts, settings) is text and escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_resource("page.html.jinja"))
    return template.render(report=report, style=Markup(style()), kind=_kind, drawn=_drawn)


def style() -> str:
    """The style sheet, with the charts' colours as variables in both modes."""
    light = "".join(f"--{colour.name}:{colour.light};" for colour in colours())
    dark = "".join(f"--{colour.name}:{colour.dark};" for colour in colours())
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{@media not print{{:root{{{dark}}}}}}}\n" + _resource(
        "page.css"
    )


def _kind(block: Block) -> str:
    return KINDS[type(block)]


def _drawn(chart: Chart) -> Markup:
    return Markup(inline_svg(chart))


def _resource(name: str) -> Any:
    return files("report").joinpath(name).read_text("utf-8")
