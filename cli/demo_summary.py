"""What `symbert demo` prints at its end: funnel, losses, scores, where everything lies and what to type next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.demo_corpus import BLOCKED_HOST, BLOCKED_PAGE


def as_text(out: Path, summary: dict[str, Any]) -> str:
    """The whole summary, in sections."""
    found = (_funnel(summary), _losses(summary), _scores(summary))
    sections = (*found, _places(out), _next(summary["next"]), _page(summary["report"]))
    return "\n\n".join("\n".join(section) for section in sections if section)


def _funnel(summary: dict[str, Any]) -> list[str]:
    funnel, texts = summary["funnel"], summary["inputs"]["texts"]
    dropped, samples = funnel["dropped"], funnel["samples"]
    page = BLOCKED_PAGE.removeprefix("https://")
    rows = [
        ("documents", funnel["documents"], f"one a module, {texts['held_out']} more are held out for the tasks"),
        ("  blocklist", -dropped["blocklist"], f"{BLOCKED_HOST} and {page}: the demo's own list, only to"),
        ("", None, "show the rule; nothing is wrong with either"),
        ("  harmful_pp", -dropped["harmful_pp"], "nothing scored these texts: --missing-harmful-pp keep"),
        ("  quality_warnings", -dropped["quality_warnings"], "by OSCAR's rules, most for having fewer than 5 lines"),
        ("kept", funnel["kept"], ""),
        ("tokens", funnel["tokens"], f"corpus {funnel['corpus_hash'][:12]}"),
        ("samples", samples["train"], f"to train on, {samples['validation']} for validation, of 32 tokens each"),
    ]
    return [
        "Corpus",
        *(f"  {name:<20}{'' if count is None else f'{count:,}':>9}  {note}".rstrip() for name, count, note in rows),
    ]


def _losses(summary: dict[str, Any]) -> list[str]:
    rows = [
        (name, f"{run['first_evaluation_loss']:.2f}", f"{run['last_evaluation_loss']:.2f}", f"{run['step']:,}")
        for name, run in summary["losses"].items()
    ]
    return [
        "Masked loss on the validation split, in nats per masked token",
        *_table(("operator", "at first", "at last", "steps"), rows),
        f"  {'by frequency alone':<20}{summary['unigram_loss']:>19.2f}   what a model reaches that looks at no context",
    ]


def _scores(summary: dict[str, Any]) -> list[str]:
    tasks = summary["inputs"]["tasks"]
    models = [
        (model["name"], _score(model["numbers"]["cola"]), _score(model["numbers"]["rte"]))
        for model in summary["glue"]["models"]
    ]
    majority = ("one answer always", "0.0", f"{100 * tasks['RTE']['majority']:.1f}")
    seeds = summary["inputs"]["identity"]["seeds"]
    return [
        f"Tiny tasks in GLUE's layout, in percent, mean (standard deviation) of {seeds} seeds",
        *_table(("model", "CoLA", "RTE"), [*models, majority]),
        f"  CoLA: is a sentence in order, or is its first word swapped with another? Matthews, {_rows(tasks['CoLA'])}",
        f"  RTE: are two sentences of one text? accuracy, {_rows(tasks['RTE'])}",
        "  Models this small and this young need not beat the last line; GLUE itself asks for the real thing.",
    ]


def _places(out: Path) -> list[str]:
    places = {
        "oscar/en_meta": "the shards, as OSCAR 23.01 has them",
        "corpus": "packed rows, manifest and ledger; datasets.load_from_disk opens it",
        "runs/original, runs/pairwise": "recipe, metrics, checkpoints",
        "scores": "table.md, table.tex, table.csv, table.json",
    }
    return [f"In {out}", *(f"  {name:<32}{what}" for name, what in places.items())]


def _next(commands: Sequence[str]) -> list[str]:
    return ["Type next", *(f"  {command}" for command in commands)]


def _page(report: str | None) -> list[str]:
    return [] if report is None else ["All of it on one page", f"  {Path(report).resolve().as_uri()}"]


def _rows(task: dict[str, Any]) -> str:
    return f"{task['train']:,} rows to train on, {task['dev']:,} to score"


def _score(number: dict[str, Any]) -> str:
    deviation = number["standard_deviation"]
    return f"{100 * number['mean']:.1f}" + ("" if deviation is None else f" ({100 * deviation:.1f})")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"  {row[0]:<20}" + "".join(f"{cell:>12}" if number else f"{cell:>7}" for number, cell in enumerate(row[1:]))
        for row in (head, *rows)
    ]
