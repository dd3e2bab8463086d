"""What was run: parameters and speed, the settings that differ, the assumptions, the commands that repeat it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from durable.settings import flatten
from oscar_prep.configuration import Configuration
from report.comparison import Comparison
from report.document import Block, Column, Commands, Definitions, Paragraph, Section, Table, Value, count, decimals
from report.models import GlueFolder
from report.published import PARAMETERS, SOURCE
from report.runs import Run
from train.glue.protocol import Protocol

HOUR = 3600.0


def runs_section(comparisons: Sequence[Comparison]) -> Section | None:
    """Parameters and speed of every run, and the settings in which runs differ; None without runs."""
    runs = [run for comparison in comparisons for curve in comparison.own for run in curve.runs]
    if not runs:
        return None
    blocks: list[Block] = [
        Paragraph("Speeds compare between runs on the same device alone, and only where nothing else ran beside them."),
        _speed(runs),
    ]
    for comparison in comparisons:
        blocks += _settings(comparison)
    return Section("runs", "Parameters, speed and controls", blocks)


def _speed(runs: Sequence[Run]) -> Table:
    columns = [
        Column("run", "run"),
        Column("operator", "operator"),
        Column("parameters", "parameters", count),
        Column("published_parameters", "in Table 2", count),
        Column("steps", "steps", count),
        Column("tokens", "tokens seen", count),
        Column("tokens_per_second", "tokens/s", count),
        Column("hours", "hours", decimals(2)),
        Column("accuracy", "masked accuracy (%)", decimals(1)),
        Column("device", "device"),
    ]
    rows: list[list[Value]] = []
    for run in runs:
        last = run.evaluations[-1]
        rate = run.tokens_per_second
        accuracy = None if last.accuracy is None else 100 * last.accuracy
        in_table_2 = PARAMETERS.get((run.size, run.operator))
        rows.append([
            run.name, run.operator, run.parameters, in_table_2, run.last_step, last.tokens, rate,
            last.tokens / rate / HOUR if rate else None, accuracy, run.device or None,
        ])  # fmt: skip
    notes = [
        "Tied parameters count once. tokens/s is the median over the "
        "steps; hours are the tokens seen at that rate, without evaluations and checkpoints.",
        f"Table 2: {SOURCE}.",
    ]
    return Table("runs", "Every run", columns, rows, notes)


def _settings(comparison: Comparison) -> list[Table]:
    """The recipe keys whose values differ within a comparison: the controls and the seeds."""
    runs = [run for curve in comparison.own for run in curve.runs]
    keys = sorted({key for run in runs for key in run.settings if not key.startswith(("runtime.", "checkpoint."))})
    varying = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    if not varying:
        return []
    columns = [Column("run", "run"), *(Column(key, key) for key in varying)]
    rows: list[list[Value]] = [[run.name, *(_shown(run.settings.get(key)) for key in varying)] for run in runs]
    name = f"settings-{comparison.name}"
    return [Table(name, f"What differs between the runs: {comparison.title}", columns, rows)]


def _shown(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def assumptions_section(runs: Sequence[Run], grid: Mapping[str, Any] | None) -> Section | None:
    """What the papers leave open and what was done instead, as the runs themselves recorded it."""
    blocks: list[Block] = []
    by_text: dict[str, list[str]] = {}
    recorded: dict[str, dict[str, str]] = {}
    for run in runs:
        entries = {key: str(value) for key, value in (run.environment.get("assumptions") or {}).items()}
        if entries:
            by_text.setdefault(repr(sorted(entries.items())), []).append(run.name)
            recorded[repr(sorted(entries.items()))] = entries
    for number, (text, names) in enumerate(by_text.items(), start=1):
        who = "all runs" if len(by_text) == 1 else ", ".join(names)
        blocks.append(Definitions(f"assumptions-{number}", f"Pre-training: {who}", recorded[text]))
    if grid and grid.get("assumptions"):
        entries = {key: str(value) for key, value in grid["assumptions"].items()}
        blocks.append(Definitions("assumptions-glue", "GLUE", entries))
    if not blocks:
        return None
    lead = Paragraph("The papers leave these open. They are choices, recorded by the runs themselves.")
    return Section("assumptions", "Assumptions", [lead, *blocks])


def commands_section(
    runs: Sequence[Run], corpus: tuple[Path, Mapping[str, Any]] | None, glue: tuple[Path, GlueFolder] | None,
    itself: Sequence[str],
) -> Section:  # fmt: skip
    """The commands that repeat each number."""
    lines = []
    if corpus:
        lines.append(prepare_command(*corpus))
    lines += [pretrain_command(run) for run in runs]
    if glue:
        lines.append(glue_command(*glue, runs))
    lines.append(shlex.join(["symbert", "report", *itself]))
    lead = Paragraph(
        "These repeat every number, from the folder where this report was made. A finished run or cell is found "
        "and not computed again: give another --out to compute it anew."
    )
    return Section("commands", "Commands", [lead, Commands(lines)])


def prepare_command(folder: Path, manifest: Mapping[str, Any]) -> str:
    """`symbert prepare` with every setting that is not the default; the manifest holds no path to the input."""
    defaults = Configuration().as_json()
    words = ["symbert", "prepare", "INPUT", "--out", str(folder), "--tokenizer", manifest["tokenizer"]["name"]]
    for key, value in manifest["configuration"].items():
        if key in defaults and value != defaults[key]:
            words += [f"--{key.replace('_', '-')}", *_argument(value)]
    return shlex.join(words)


def _argument(value: Any) -> list[str]:
    if isinstance(value, list):
        numbers = all(isinstance(part, int | float) for part in value)
        return [f"{part:g}" for part in value] if value and numbers else [",".join(map(str, value)) or "none"]
    return [str(value)]


def pretrain_command(run: Run) -> str:
    """`symbert pretrain` from the run's own resolved recipe."""
    data = str(run.environment.get("data", "CORPUS"))
    recipe = str(run.folder / "recipe.toml")
    return shlex.join(["symbert", "pretrain", "--recipe", recipe, "--data", data, "--out", str(run.folder)])


def _checkpoint(name: str, runs: Mapping[str, Path]) -> str:
    """Where the model that a GLUE folder calls `name` lies: a run, or RUN/step-… of a run; else the name itself."""
    run, _, step = name.partition("/")
    if run not in runs:
        return name
    return str(runs[run] / "checkpoints" / step if step else runs[run])


def glue_command(folder: Path, glue: GlueFolder, runs: Sequence[Run]) -> str:
    """`symbert glue` with the folder's tasks, seeds and every setting of the protocol that is not the default."""
    known = {run.name: run.folder for run in runs}
    grid = glue.grid
    names = [str(facts["name"]) for facts in grid["checkpoints"].values()]
    words = ["symbert", "glue", *(_checkpoint(name, known) for name in names), "--out", str(folder)]
    if any(facts.get("source") == "TSV" for facts in grid["tasks"].values()):
        words += ["--data-dir", "GLUE"]
    seeds = sorted({seed for model in glue.models for one in model.scores.numbers.values() for seed in one.seeds})
    # The comma at the end keeps a single number from being read as a count.
    words += ["--tasks", ",".join(grid["tasks"]), "--seeds", "".join(f"{seed}," for seed in seeds)]
    defaults = Protocol().model_dump()
    changed = {key: value for key, value in flatten(grid["protocol"]).items() if value != defaults.get(key)}
    for key, value in changed.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)
