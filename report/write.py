"""A report on disk: one file, or a folder with a file a table; figures beside it. Whole or not at all."""

from collections.abc import Callable, Sequence
from pathlib import Path

from durable.errors import with_hint
from durable.files import whole_folder, write_bytes, write_text
from report.document import Report
from report.errors import ReportError
from report.text import csv_tables, json_text, latex_tables, markdown

FORMATS = ("html", "md", "csv", "latex", "json")
SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


WRITTEN = ".symbert-report"
"""In a folder that a report has written: the names of its files, a line each."""


def chosen_format(name: str | None, out: Path) -> str:
    """The format asked for, else that of the suffix of `out`, HTML without one. Raises ReportError for no format."""
    if name is None:
        suffix = out.suffix.lower()
        if suffix and suffix not in SUFFIXES and not out.is_dir():
            refusal = ReportError(f"--out {out}: no format has the suffix {out.suffix}, expected {', '.join(SUFFIXES)}")
            raise with_hint(refusal, f"--format {' or '.join(FORMATS)}")
        return SUFFIXES.get(suffix, "html")
    if name not in FORMATS:
        raise ReportError(f"--format {name} is not a format, expected {', '.join(FORMATS)}")
    return name


def check_places(out: Path, kind: str, figures: Path | None, inputs: Sequence[Path]) -> None:
    """Raises ReportError if `out` or `figures` is in the way of something: of an input, of each other, of any file."""
    _refuse(out, is_folder=kind in ("csv", "latex"))
    if figures is not None:
        _refuse(figures, is_folder=True)
    for place in filter(None, (out, figures)):
        for folder in inputs:
            if place.resolve().is_relative_to(folder.resolve()):
                raise with_hint(ReportError(f"{place} lies in {folder}, which the report reads"), "give another place")
    if figures is not None:
        one, other = out.resolve(), figures.resolve()
        if one.is_relative_to(other) or (kind in ("csv", "latex") and other.is_relative_to(one)):
            raise with_hint(ReportError(f"--out {out} and --figures {figures} share a folder"), "give each its own")


def write_report(report: Report, out: Path, kind: str, figures: Path | None) -> list[Path]:
    """Write the report as `kind` (one of FORMATS) to `out`, and its charts to the folder `figures`.

    CSV and LaTeX are a folder with one file a table. Returns what was written. The places must have been checked.
    Raises ReportError if matplotlib or jinja2 is wanted and not there.
    """
    drawn = _drawn(report) if figures is not None else {}
    if kind in ("csv", "latex"):
        tables = csv_tables(report) if kind == "csv" else latex_tables(report)
        _write_folder(out, {name: text.encode() for name, text in tables.items()})
    else:
        write_text(out, _text(report, kind), name="report")
    if figures is None:
        return [out]
    _write_folder(figures, drawn)
    return [out, figures]


def _text(report: Report, kind: str) -> str:
    writers: dict[str, Callable[[Report], str]] = {"md": markdown, "json": json_text, "html": _page}
    return writers[kind](report)


def _page(report: Report) -> str:
    try:
        from report.page import page
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return page(report)


def _drawn(report: Report) -> dict[str, bytes]:
    try:
        from report.draw import pdf, svg
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    drawn = {}
    for chart in report.charts():
        drawn[f"{chart.name}.svg"] = svg(chart).encode()
        drawn[f"{chart.name}.pdf"] = pdf(chart)
    return drawn


def _missing(error: ModuleNotFoundError) -> ReportError:
    wanted = ReportError(f"pages and figures need {error.name}, which is not installed")
    return with_hint(wanted, "pip install 'symbert[report]', or --format md without figures")


def _refuse(path: Path, *, is_folder: bool) -> None:
    if is_folder and path.exists() and not path.is_dir():
        raise ReportError(f"{path} is a file, expected a folder to write to")
    if is_folder and path.is_dir():
        listing = path / WRITTEN
        ours = {WRITTEN, *listing.read_text("utf-8").splitlines()} if listing.is_file() else set()
        strangers = sorted(file.name for file in path.iterdir() if file.name not in ours)
        if strangers:
            raise with_hint(ReportError(f"{path} holds other things ({strangers[0]})"), "give a new folder")
    if not is_folder and path.is_dir():
        raise ReportError(f"{path} is a folder, expected a file to write to")


def _write_folder(folder: Path, content: dict[str, bytes]) -> None:
    """Replace the folder, in which only an earlier report's files are, as a whole."""
    with whole_folder(folder.resolve(), name="report") as partial:
        for name, file in content.items():
            write_bytes(partial / name, file)
        write_text(partial / WRITTEN, "".join(f"{name}\n" for name in content))
