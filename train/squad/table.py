"""The result table of SQuAD: exact match and F1, mean and standard deviation over the seeds, in percent."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.files import write_text
from train.glue.names import names_of
from train.glue.score import Summary
from train.glue.table import NONE

HEADINGS = {
    "exact_match": "exact match",
    "f1": "F1",
    "has_answer_exact_match": "exact match, has answer",
    "has_answer_f1": "F1, has answer",
    "no_answer_exact_match": "no answer",
}
"""Of the scores that are shown; without an answer F1 is the exact match."""


@dataclass(frozen=True)
class SquadTable:
    """All models of a folder, under one protocol."""

    models: Mapping[str, Mapping[str, Summary]]
    """Name → score → its values over the seeds."""
    protocol: Mapping[str, Any]


def squad_table(cells: Iterable[Mapping[str, Any]], grid: Mapping[str, Any]) -> SquadTable:
    """The table of all cells, models in the order in which they came to the folder."""
    found: dict[str, dict[int, Mapping[str, float]]] = {weights: {} for weights in grid["checkpoints"]}
    for cell in cells:
        found[cell["identity"]["weights"]][cell["identity"]["seed"]] = cell["scores"]
    names = names_of(grid["checkpoints"])
    models = {}
    for weights, by_seed in found.items():
        seeds = sorted(by_seed)
        scores = by_seed[seeds[0]] if seeds else {}
        models[names[weights]] = {
            name: Summary(tuple(seeds), tuple(by_seed[seed][name] for seed in seeds)) for name in scores
        }
    return SquadTable({name: scores for name, scores in models.items() if scores}, grid["protocol"])


def write_squad_table(out: Path, cells: Iterable[Mapping[str, Any]], grid: Mapping[str, Any]) -> SquadTable:
    """Write table.md and table.json."""
    table = squad_table(cells, grid)
    write_text(out / "table.md", as_markdown(table))
    write_text(out / "table.json", json.dumps(as_document(table), indent=2, ensure_ascii=False) + "\n")
    return table


def as_markdown(table: SquadTable) -> str:
    """A GitHub table."""
    shown = [name for name in HEADINGS if any(name in scores for scores in table.models.values())]
    head = ["model", *(HEADINGS[name] for name in shown), "seeds"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for model, scores in table.models.items():
        values = [_cell(scores[name]) if name in scores else NONE for name in shown]
        seeds = next(iter(scores.values())).seeds
        lines.append([model.replace("|", "\\|"), *values, ",".join(map(str, seeds))])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(summary: Summary) -> str:
    deviation = summary.standard_deviation
    return f"{100 * summary.mean:.2f} ({NONE if deviation is None else f'{100 * deviation:.2f}'})"


def as_document(table: SquadTable) -> dict[str, Any]:
    """The table for programs: shares of 1, every seed."""
    return {
        "protocol": dict(table.protocol),
        "models": [
            {
                "name": name,
                "scores": {
                    score: {
                        "mean": summary.mean,
                        "standard_deviation": summary.standard_deviation,
                        "seeds": dict(zip(map(str, summary.seeds), summary.values, strict=True)),
                    }
                    for score, summary in scores.items()
                },
            }
            for name, scores in table.models.items()
        ],
    }
