"""The report as Markdown, as LaTeX and CSV tables, and as JSON."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from report.document import Block, Charts, Commands, Definitions, Paragraph, Report, Table


def markdown(report: Report) -> str:
    """One document; of a chart it holds the caption and the description."""
    parts = [f"# {report.title}", report.lead]
    if report.facts:
        parts.append("\n".join(f"- {fact.label}: **{fact.value}** {fact.note}".rstrip() for fact in report.facts))
    for section in report.sections:
        parts.append(f"## {section.title}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Paragraph():
            return block.text
        case Table():
            return _markdown_table(block)
        case Charts():
            return "\n\n".join(f"**{chart.caption}.** {chart.description}" for chart in block.charts)
        case Commands():
            return "\n".join(["```console", *(f"$ {line}" for line in block.lines), "```"])
        case Definitions():
            return f"### {block.title}\n\n" + "\n".join(f"- *{term}*: {text}" for term, text in block.entries.items())


def _markdown_table(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells) + " |"
        )

    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    lines = [f"**{table.caption}**", "", line([column.heading for column in table.columns]), rule]
    lines += [line(row) for row in table.texts()]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)])


def csv_tables(report: Report) -> dict[str, str]:
    """File name → a table in full precision; empty where there is no number."""
    return {f"{table.name}.csv": _csv(table) for table in report.tables()}


def _csv(table: Table) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows(["" if value is None else value for value in row] for row in table.rows)
    return file.getvalue()


def latex_tables(report: Report) -> dict[str, str]:
    r"""File name → a booktabs tabular to \input; caption and notes are comments above it."""
    return {f"{table.name}.tex": _latex(table) for table in report.tables()}


def _latex(table: Table) -> str:
    comments = "".join(f"% {' '.join(text.split())}\n" for text in (table.caption, *table.notes))
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(escaped(column.heading) for column in table.columns)
    body = "".join(f"{' & '.join(map(escaped, row))} \\\\\n" for row in table.texts())
    return (
        f"{comments}\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n"
    )


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$",
    "±": r"$\pm$", "×": r"$\times$", "<": "$<$", ">": "$>$", "\n": " ",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


def escaped(text: str) -> str:
    """Text as LaTeX sets it: no character of it is a command."""
    return "".join(LATEX.get(character, character) for character in text)


def document(report: Report) -> dict[str, Any]:
    """The report for programs: every table in full precision, by name, and what the page says beside them."""
    return {
        "title": report.title,
        "facts": [vars(fact) for fact in report.facts],
        "tables": {table.name: _as_json(table) for table in report.tables()},
        "charts": {
            chart.name: {"caption": chart.caption, "description": chart.description} for chart in report.charts()
        },
        "commands": [line for block in report.blocks() if isinstance(block, Commands) for line in block.lines],
        "definitions": {block.name: dict(block.entries) for block in report.blocks() if isinstance(block, Definitions)},
    }


def _as_json(table: Table) -> Mapping[str, Any]:
    keys = [column.key for column in table.columns]
    return {
        "caption": table.caption,
        "rows": [dict(zip(keys, row, strict=True)) for row in table.rows],
        "notes": list(table.notes),
    }


def json_text(report: Report) -> str:
    """`document` as JSON."""
    return json.dumps(document(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
