"""A report put together from what was given: runs, a corpus, a GLUE folder, the published CSV files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from durable.errors import with_hint
from report.checkpoints import checkpoints_section
from report.comparison import Comparison, comparisons
from report.convergence import convergence_section, plateau_of
from report.corpus import corpus_section, read_corpus
from report.document import Fact, Report
from report.errors import ReportError
from report.glue import glue_section
from report.models import SCORE, Model, published_models, read_glue
from report.published import SOURCE, read_published
from report.record import assumptions_section, commands_section, runs_section
from report.replicas import replicas_of
from report.runs import read_run


@dataclass(frozen=True)
class Inputs:
    """The folders that a report reads."""

    runs: Sequence[Path] = ()
    corpus: Path | None = None
    glue: Path | None = None
    published: Path | None = None
    arguments: Sequence[str] = field(default=())
    """The command line that asked for the report, to be printed in it."""


def build_report(inputs: Inputs) -> Report:
    """Read every folder and put the report together. Raises ReportError, PrepareError or TrainError for a bad one."""
    if not (inputs.runs or inputs.corpus or inputs.glue or inputs.published):
        raise with_hint(
            ReportError("nothing to report on: no run, --corpus, --glue or --published was given"),
            "symbert report RUN... --out report.html",
        )
    places = [folder.resolve() for folder in inputs.runs]
    twice = next((run for run, place in zip(inputs.runs, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise with_hint(ReportError(f"{twice} is given twice, and would pass for two seeds"), "name every run once")
    manifest = read_corpus(inputs.corpus) if inputs.corpus else None
    runs = [read_run(folder) for folder in inputs.runs]
    published = read_published(inputs.published) if inputs.published else None
    found = read_glue(inputs.glue, runs) if inputs.glue else None
    compared = comparisons(runs, published)
    own = found.models if found else []
    theirs = published_models(published) if published else []
    sections = [
        corpus_section(manifest, runs) if manifest else None,
        convergence_section(compared) if compared else None,
        glue_section(own, theirs) if own or theirs else None,
        checkpoints_section(own, published),
        runs_section(compared),
        assumptions_section(runs, found.grid if found else None),
        commands_section(
            runs,
            (inputs.corpus, manifest) if inputs.corpus and manifest else None,
            (inputs.glue, found) if inputs.glue and found else None,
            inputs.arguments,
        ),
    ]
    facts = [*_corpus_facts(manifest), *_loss_facts(compared), *_glue_facts(own or theirs)]
    return Report("symbert report", _lead(inputs, len(runs), len(own)), facts, [s for s in sections if s is not None])


def _lead(inputs: Inputs, runs: int, models: int) -> str:
    parts = [f"{runs} pre-training run{'s' * (runs != 1)}"] if runs else []
    parts += ["a packed corpus"] if inputs.corpus else []
    parts += [f"{models} model{'s' * (models != 1)} on GLUE"] if inputs.glue else []
    parts += [f"the curves and tables of {SOURCE}, as published"] if inputs.published else []
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"BERT models that differ only in their attention operator: {listed}."


def _corpus_facts(manifest: dict[str, object] | None) -> list[Fact]:
    if manifest is None:
        return []
    ledger = manifest["ledger"]
    assert isinstance(ledger, dict)
    return [
        Fact("documents kept", f"{ledger['kept']:,}", f"of {ledger['documents']:,}"),
        Fact("tokens", f"{ledger['tokens']:,}", f"{ledger['samples'].get('train', 0):,} training samples"),
    ]


def _loss_facts(compared: Sequence[Comparison]) -> list[Fact]:
    facts = []
    for comparison in compared[:2]:
        curves = comparison.own or comparison.curves
        best = min(curves, key=lambda curve: curve.losses[-1])
        facts.append(Fact("lowest last loss", f"{best.losses[-1]:.3f}", f"{best.label}; {comparison.title}"))
        ends = [(end, curve.label) for curve in curves if (end := plateau_of(comparison, curve)) is not None]
        if len(ends) > 1:
            first = min(end for end, _ in ends)
            labels = ", ".join(label for end, label in ends if end == first)
            facts.append(Fact("first off the plateau", f"step {first:,}", f"{labels}; {comparison.title}"))
    return facts


def _glue_facts(models: Sequence[Model]) -> list[Fact]:
    """The best model's score, which is a mean over its seeds; averages of fewer numbers than others' do not count."""
    scored = [(found.scores, found) for found in replicas_of(models)]
    averages = [(scores.average, found, len(scores.averaged)) for scores, found in scored if scores.average is not None]
    if not averages:
        return []
    most = max(count for *_, count in averages)
    average, model, _ = max((entry for entry in averages if entry[2] == most), key=lambda entry: entry[0].mean)
    deviation = average.standard_deviation
    spread = f" ± {SCORE(deviation)}" if deviation is not None else ""
    over = f", mean of {len(model.models)} pre-training seeds" if model.several else ""
    return [Fact("best GLUE score", f"{SCORE(average.mean)}{spread}", f"{model.label}{over}")]
