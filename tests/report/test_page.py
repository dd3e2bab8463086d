"""The page as bytes: self-contained, escaped, accessible; how it looks is in test_browser.py."""

import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli.main import run
from report.build import Inputs, build_report
from report.document import Bar, BarChart, Charts, Column, Paragraph, Report, Section, Table, count
from report.draw import inline_svg, pdf, spread, svg
from report.page import page, style
from report.palette import colours
from tests.report.conftest import Study

HOSTILE = "<script>alert(1)</script>\"'&"


class Outline(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))


@pytest.fixture(scope="module")
def shown(study: Study) -> str:
    return page(build_report(Inputs(study.runs, study.corpus, study.glue)))


@pytest.fixture(scope="module")
def outline(shown: str) -> Outline:
    parsed = Outline()
    parsed.feed(shown)
    return parsed


def test_the_page_asks_for_nothing_from_outside(shown: str, outline: Outline) -> None:
    assert not {"script", "img", "iframe", "object", "embed"} & {tag for tag, _ in outline.tags}
    for _, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:,")), (name, value)
    addresses = {address for address in re.findall(r"https?://[^\s\"'<]+", shown) if "w3.org" not in address}
    assert not addresses


def test_every_id_is_there_once_and_every_reference_has_its_target(shown: str, outline: Outline) -> None:
    assert len(set(outline.ids)) == len(outline.ids)
    wanted = {str(attributes["href"])[1:] for tag, attributes in outline.tags if tag == "a"}
    wanted |= {name for _, a in outline.tags for name in str(a.get("aria-labelledby") or "").split()}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", shown))
    wanted |= {str(a["xlink:href"])[1:] for _, a in outline.tags if a.get("xlink:href")}
    assert wanted <= set(outline.ids)


def test_charts_have_a_text_alternative_and_tables_are_reached_by_keyboard(outline: Outline) -> None:
    charts = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(charts) == 4
    assert all(attributes["role"] == "img" and attributes["aria-labelledby"] for attributes in charts)
    regions = [attributes for _, attributes in outline.tags if attributes.get("class") == "scroll"]
    assert len(regions) == len([tag for tag, _ in outline.tags if tag == "table"])
    assert all(attributes["tabindex"] == "0" and attributes["role"] == "region" for attributes in regions)
    assert next(attributes for tag, attributes in outline.tags if tag == "html")["lang"] == "en"


def test_hostile_text_stays_text_in_every_place(study: Study, tmp_path: Path) -> None:
    table = Table("t", HOSTILE, [Column("a", HOSTILE), Column("b", "b", count)], [[HOSTILE, 1]], [HOSTILE])
    chart = BarChart("c", HOSTILE, HOSTILE, HOSTILE, [Bar(HOSTILE, 3, HOSTILE, "kept")])
    report = Report(HOSTILE, HOSTILE, (), [Section("s", HOSTILE, [Paragraph(HOSTILE), table, Charts([chart])])])
    assert "<script" not in page(report)
    named = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(study.runs[0], named)
    shown = page(build_report(Inputs([named])))
    assert "<img" not in shown
    assert "&lt;img src=x" in shown


@pytest.mark.slow
def test_the_same_folders_give_the_same_bytes(study: Study, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run(study.arguments(tmp_path / "page.html", "--figures", tmp_path / "figures")) == 0
        shutil.copy(tmp_path / "page.html", tmp_path / f"{name}.html")
        shutil.copytree(tmp_path / "figures", tmp_path / name)
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()
    files = sorted(path.name for path in (tmp_path / "first").glob("[!.]*"))
    assert {Path(name).suffix for name in files} == {".svg", ".pdf"}
    assert len(files) == 8
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_colours_follow_the_readers_mode_in_the_page_and_are_fixed_in_a_figure() -> None:
    chart = BarChart("c", "caption", "description", "documents", [Bar("kept", 3, "3", "kept")])
    assert "var(--kept)" in inline_svg(chart)
    assert "#" not in re.sub(r"(href=\"|url\()#[^\")]+", "", inline_svg(chart))
    assert "var(" not in svg(chart)
    assert pdf(chart).startswith(b"%PDF")
    assert all(f"--{colour.name}:{colour.dark}" in style() for colour in colours())


def test_text_on_its_background_has_enough_contrast_in_both_modes() -> None:
    by_name = {colour.name: colour for colour in colours()}
    for colour in colours():
        if colour.name not in ("surface", "grid"):
            assert contrast(colour.light, by_name["surface"].light) >= 4.5, colour
            assert contrast(colour.dark, by_name["surface"].dark) >= 4.5, colour


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's ratio of two colours."""
    brighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_labels_that_would_touch_are_moved_apart_and_keep_their_order() -> None:
    assert spread([1.0, 5.0], 1.0) == [1.0, 5.0]
    assert spread([2.0, 2.0, 2.0], 1.0) == [1.0, 2.0, 3.0]
    moved = spread([3.0, 0.0, 0.1, 0.2, 0.9], 1.0)
    order = sorted(range(5), key=moved.__getitem__)
    assert order == [1, 2, 3, 4, 0]
    assert all(moved[b] - moved[a] >= 1.0 - 1e-9 for a, b in itertools.pairwise(order))
