"""The result table in the layout of Table 3 of Courtois et al. (2024): Markdown, LaTeX, CSV and JSON.

A row is a model; its columns are the GLUE score with its standard deviation, then the nine numbers, in percent.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from durable.files import write_text
from train.glue.curve import curve_document, curves_as_csv
from train.glue.published import Published, PublishedRow
from train.glue.score import Summary
from train.glue.table import NONE, Row, Table, table_of
from train.glue.tasks import heading


def write_table(
    out: Path,
    cells: Iterable[Mapping[str, Any]],
    grid: Mapping[str, Any],
    average: str = "nine",
    published: Published | None = None,
    remarks: Sequence[str] = (),
) -> Table:
    """Write the table of a GLUE folder's cells into it, with further remarks below."""
    table = table_of(cells, grid, average)
    table = replace(table, published=published, remarks=[*table.remarks, *remarks])
    write_files(out, table)
    return table


def write_files(out: Path, table: Table) -> None:
    """Write table.md, table.tex, table.csv and table.json, and curve.csv where a run has a curve."""
    write_text(out / "table.md", as_markdown(table))
    write_text(out / "table.tex", as_latex(table))
    write_text(out / "table.csv", as_csv(table))
    write_text(out / "table.json", json.dumps(as_document(table), indent=2, ensure_ascii=False) + "\n")
    curves = table.curves()
    if curves:
        write_text(out / "curve.csv", curves_as_csv(curves))
    else:
        (out / "curve.csv").unlink(missing_ok=True)


def as_markdown(table: Table) -> str:
    """A GitHub table, then the notes."""
    head = ["model", "GLUE (std)", *(heading(number) for number in table.numbers)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    lines += [[name.replace("|", "\\|"), *cells] for name, cells in [*_shown(table), *_shown_published(table)]]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + "".join(f"\n{note}\n" for note in table.notes())


def as_latex(table: Table) -> str:
    r"""A booktabs tabular to \input; the notes are comments above it."""
    head = ["", r"GLUE (std)", *(heading(number) for number in table.numbers)]
    body, theirs = (
        "".join(f"{' & '.join(map(_latex, (name, *cells)))} \\\\\n" for name, cells in rows)
        for rows in (_shown(table), _shown_published(table))
    )
    if theirs:
        body += f"\\midrule\n{theirs}"
    return (
        "".join(f"% {note}\n" for note in table.notes())
        + f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\toprule\n{' & '.join(head)} \\\\\n\\midrule\n"
        + body
        + "\\bottomrule\n\\end{tabular}\n"
    )


def as_csv(table: Table) -> str:
    """One line a model; full precision, empty where there is no number."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", "weights", "glue", "glue_std", "numbers", "seeds", *table.numbers])
    for row in table.rows:
        average = row.scores.average
        writer.writerow(
            [
                row.name,
                row.weights,
                "" if average is None else average.mean,
                "" if average is None or average.standard_deviation is None else average.standard_deviation,
                len(row.scores.averaged),
                "" if average is None else " ".join(map(str, average.seeds)),
                *(row.scores.numbers[number].mean if number in row.scores.numbers else "" for number in table.numbers),
            ]
        )
    for theirs in _published_rows(table):
        numbers = [theirs.numbers.get(number, "") for number in table.numbers]
        mean, deviation = theirs.average(table.average)
        shown = "" if deviation is None else deviation
        writer.writerow([theirs.name, "", mean, shown, len(theirs.averaged(table.average)), "", *numbers])
    return file.getvalue()


def as_document(table: Table) -> dict[str, Any]:
    """The table for programs: shares of 1, every seed."""
    return {
        "protocol": dict(table.protocol),
        "average": table.average,
        "models": [
            {
                "name": row.name,
                "weights": row.weights,
                "noise": row.noise or None,
                **{key: value for key, value in (row.facts or {}).items() if key not in ("name", "model")},
                "glue": None if row.scores.average is None else _document(row.scores.average),
                "averaged": [number for group in row.scores.averaged for number in group],
                "missing": list(row.scores.missing),
                "degenerate": [f"{task}-{seed}" for task, seed in row.degenerate],
                "numbers": {number: _document(summary) for number, summary in row.scores.numbers.items()},
            }
            for row in table.rows
        ],
        "published": [
            {
                "name": row.name,
                "source": row.source,
                "glue": row.average(table.average)[0],
                "averaged": [number for group in row.averaged(table.average) for number in group],
                "numbers": row.numbers,
            }
            for row in _published_rows(table)
        ],
        "curves": [curve_document(curve) for curve in table.curves()],
        "notes": table.notes(),
    }


def _document(summary: Summary) -> dict[str, Any]:
    return {
        "mean": summary.mean,
        "standard_deviation": summary.standard_deviation,
        "median": summary.median,
        "minimum": min(summary.values),
        "maximum": max(summary.values),
        "seeds": {str(seed): value for seed, value in zip(summary.seeds, summary.values, strict=True)},
    }


def _shown(table: Table) -> list[tuple[str, list[str]]]:
    return [(row.name, [_average(row), *_means(row, table)]) for row in table.rows]


def _shown_published(table: Table) -> list[tuple[str, list[str]]]:
    return [
        (
            row.name,
            [
                _with_deviation(*row.average(table.average)),
                *(f"{100 * row.numbers[number]:.2f}" if number in row.numbers else NONE for number in table.numbers),
            ],
        )
        for row in _published_rows(table)
    ]


def _published_rows(table: Table) -> tuple[PublishedRow, ...]:
    return table.published.rows if table.published else ()


def _average(row: Row) -> str:
    average = row.scores.average
    return NONE if average is None else _with_deviation(average.mean, average.standard_deviation)


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.2f} ({NONE if deviation is None else f'{100 * deviation:.2f}'})"


def _means(row: Row, table: Table) -> list[str]:
    numbers = row.scores.numbers
    return [f"{100 * numbers[number].mean:.2f}" if number in numbers else NONE for number in table.numbers]


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", NONE: "--"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
