"""`symbert prepare`: OSCAR shards → packed corpus."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.console import AsJson, Quiet, command_line, print_json, progress, say
from cli.values import number, refuse
from durable.signals import EXIT_DONE, EXIT_QUARANTINED, StopRequest

if TYPE_CHECKING:
    from oscar_prep.configuration import Configuration
    from oscar_prep.plan import Plan
    from oscar_prep.prepare import Running
    from oscar_prep.sources import Sources

FILTERS, BUDGETS, RUNNING = "Filters", "Budgets", "Running"

MissingHarmfulPp = Literal["drop", "keep", "score"]
MissingWarnings = Literal["keep", "compute"]


def prepare(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Shards of OSCAR 23.01, 22.01 or another corpus, or folders of them; s3://, gs://, hf:// too.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="The corpus folder; the same command again continues where it ended."),
    ] = None,
    staging: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where a corpus for a URL is made before it is copied (the user's cache)."),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(metavar="PATH|HUB_ID", help="Folder with tokenizer.json, or a model on the hub.")
    ] = "bert-base-uncased",
    sequence_length: Annotated[int, typer.Option(min=3, help="Tokens in a sample.")] = 512,
    validation_samples: Annotated[int, typer.Option(min=0, help="Samples held out; 0 for none.")] = 10_000,
    validation_share: Annotated[
        float, typer.Option(callback=number(above=0, below=1), help="Share of documents they are drawn from.")
    ] = 0.01,
    salt: Annotated[int, typer.Option(help="Another number holds out other documents.")] = 0,
    drop_categories: Annotated[
        str | None,
        typer.Option(
            metavar="LIST|none",
            help="UT1 categories to drop, by commas (the paper's eleven).",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    blocklists: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|INDEX",
            help="UT1 lists or their index: judge URLs by them too, beside the records' categories.",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    harmful_pp: Annotated[
        tuple[float, float],
        typer.Option(metavar="MIN MAX", help="Keep what lies between, both excluded.", rich_help_panel=FILTERS),
    ] = (5.0, 100_000.0),
    missing_harmful_pp: Annotated[
        MissingHarmfulPp, typer.Option(help="Documents without one.", rich_help_panel=FILTERS)
    ] = "drop",
    kenlm: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="KenLM model to score harmful perplexity by.", rich_help_panel=FILTERS),
    ] = None,
    rescore: Annotated[
        bool,
        typer.Option(
            "--rescore", help="Judge anew by the given models, whatever records say.", rich_help_panel=FILTERS
        ),
    ] = False,
    drop_warnings: Annotated[
        str,
        typer.Option(metavar="LIST|all|none", help="Quality warnings to drop, by commas.", rich_help_panel=FILTERS),
    ] = "all",
    missing_warnings: Annotated[
        MissingWarnings, typer.Option(help="Documents without annotation.", rich_help_panel=FILTERS)
    ] = "keep",
    language: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Keep one language, such as en.", rich_help_panel=FILTERS),
    ] = None,
    min_language_probability: Annotated[
        float | None,
        typer.Option(
            metavar="P", callback=number(least=0, most=1), help="Of that language (0.8).", rich_help_panel=FILTERS
        ),
    ] = None,
    language_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="fastText model for what records do not say.", rich_help_panel=FILTERS),
    ] = None,
    content_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The records' text; with another, only it and the URL are read.")
    ] = "content",
    url_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The records' URL; dots lead into objects.")
    ] = "warc_headers.warc-target-uri",
    max_documents: Annotated[
        int | None, typer.Option(min=1, help="Stop at the first N kept documents.", rich_help_panel=BUDGETS)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Stop with the kept document that reaches N tokens.", rich_help_panel=BUDGETS),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (all cores).", rich_help_panel=RUNNING)] = None,
    max_bad_share: Annotated[
        float,
        typer.Option(
            callback=number(least=0, most=1),
            help="Share of broken lines that is put aside rather than refused.",
            rich_help_panel=RUNNING,
        ),
    ] = 0.001,
    estimate: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            callback=number(above=0, most=1),
            help="Read this share of every file and print what to expect; budgets aside, writes nothing.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html.", rich_help_panel=RUNNING)
    ] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Filter, tokenize and pack OSCAR into a corpus of exact rows that `datasets.load_from_disk` opens too."""
    _refuse_empty_range(harmful_pp)
    dropped_warnings = _warnings(drop_warnings)
    if out is None and estimate is None:
        raise typer.BadParameter("missing option '--out'")
    from durable.workers import start_importing

    start_importing("oscar_prep.prepare")
    from durable.errors import with_hint
    from durable.settings import validated
    from oscar_prep.configuration import DROPPED_CATEGORIES, Configuration
    from oscar_prep.errors import PrepareError
    from oscar_prep.prepare import Running, available_cores
    from oscar_prep.prepare import prepare as make
    from oscar_prep.sources import Sources

    settings = {
        "sequence_length": sequence_length,
        "validation_samples": validation_samples,
        "validation_share": validation_share,
        "salt": salt,
        "drop_categories": _names(drop_categories) if drop_categories else DROPPED_CATEGORIES,
        "harmful_pp": harmful_pp,
        "missing_harmful_pp": missing_harmful_pp,
        "drop_warnings": dropped_warnings,
        "missing_warnings": missing_warnings,
        "rescore": rescore,
        "language": language,
        "content_field": content_field,
        "url_field": url_field,
        "max_documents": max_documents,
        "max_tokens": max_tokens,
    }
    if min_language_probability is not None:
        if language is None:
            raise with_hint(PrepareError("--min-language-probability needs --language"), "--language en")
        settings["min_language_probability"] = min_language_probability
    configuration = validated(Configuration, settings, what="prepare")
    sources = Sources(blocklists, kenlm, language_model)
    plan = _with_output(_plan(inputs, tokenizer, configuration, sources, quiet), out or "", staging)
    with StopRequest() as stop, progress("prepare", "B", quiet=quiet) as callback:
        running = Running(workers or available_cores(), max_bad_share, callback, stop)
        if estimate is not None:
            return _estimate(plan, running, estimate, as_json)
        started = time.monotonic()
        manifest = make(plan, running)
    if manifest is None:
        return _stopped(running)
    summary = summarise(manifest, time.monotonic() - started)
    _write_pages(plan, manifest, command_line(context), inputs, report)
    if as_json:
        print_json(summary)
    else:
        _print_funnel(str(plan.target or plan.out), summary)
    return _tell_what_is_missing(plan.out, manifest, summary)


def _plan(inputs: list[str], tokenizer: str, configuration: "Configuration", sources: "Sources", quiet: bool) -> "Plan":
    from durable.remote import place
    from oscar_prep.inputs import discover
    from oscar_prep.plan import Plan
    from oscar_prep.tokenizer import CorpusTokenizer

    found = discover([place(text) for text in inputs])
    if found.ignored and not quiet:
        names = ", ".join(path.name for path in found.ignored[:5])
        say(f"ignored {len(found.ignored)} other files: {names}{', …' if len(found.ignored) > 5 else ''}")
    chosen = CorpusTokenizer.find(tokenizer)
    if chosen.why_no_table and not quiet:
        reason = chosen.why_no_table
        say(f"the tokenizer {chosen.name} is asked for every word, many times slower than a table: {reason}")
    return Plan(Path(), tuple(found.files), chosen, configuration, sources)


def _with_output(plan: "Plan", out: str, staging: Path | None) -> "Plan":
    """The plan with the folder to write to: `out` itself, or a folder here from which all is copied to the URL."""
    import hashlib
    import os
    from dataclasses import replace

    from durable.errors import with_hint
    from durable.remote import RemotePath, place
    from oscar_prep.errors import PrepareError

    target = place(out)
    if isinstance(target, RemotePath):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        own = cache / "symbert" / "staging" / hashlib.sha256(target.url.encode()).hexdigest()[:16]
        return replace(plan, out=staging or own, target=target)
    if staging is not None:
        raise with_hint(PrepareError(f"--staging is for an --out that is a URL, not for {out}"), "leave it out")
    return replace(plan, out=target)


def _tell_what_is_missing(out: Path, manifest: dict[str, Any], summary: dict[str, Any]) -> int:
    if manifest["lost"]:
        say(f"error: left out, for they kill the process that reads them: {', '.join(manifest['lost'])}")
    if summary.get("bad_url"):
        say(f"{summary['bad_url']:,} documents have no URL that leads to a host: no list could judge them")
    if summary["invalid"]:
        say(f"{summary['invalid']:,} lines are no documents: see {out / 'quarantine'}")
    return EXIT_QUARANTINED if manifest["lost"] or summary["invalid"] else EXIT_DONE


def _estimate(plan: "Plan", running: "Running", share: float, as_json: bool) -> int:
    from oscar_prep.estimate import estimate

    expected = estimate(plan, running, share)
    if expected is None:
        return _stopped(running)
    if as_json:
        print_json(expected)
    else:
        _print_expected(expected)
    return EXIT_DONE


def _stopped(running: "Running") -> int:
    assert running.stop is not None
    say("stopped: every finished file is kept; the same command again continues")
    return running.stop.exit_code


def summarise(manifest: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    ledger = manifest["ledger"]
    notes = {"bad_url": ledger["notes"].get("bad_url", 0)} if manifest["blocklists"] else {}
    samples = {name: ledger["samples"].get(name, 0) for name in ("train", "validation", "surplus")}
    return {
        **{name: ledger[name] for name in ("documents", "kept", "invalid", "dropped", "tokens")},
        **notes,
        "samples": samples,
        "tail": ledger["tail"],
        "corpus_hash": manifest["corpus_hash"],
        "seconds": round(seconds, 3),
    }


def _write_pages(plan: "Plan", manifest: dict[str, Any], command: str, inputs: list[str], report: bool) -> None:
    """README.md, and report.html where the packages that draw it are there."""
    from durable.files import write_text
    from oscar_prep.card import data_card
    from oscar_prep.upload import Upload

    write_text(plan.out / "README.md", data_card(manifest, command))
    if report:
        _write_report(plan.out, command, inputs)
    if plan.target is not None:
        Upload(plan.out, plan.target).pages()


def _write_report(out: Path, command: str, inputs: list[str]) -> None:
    from importlib.util import find_spec

    from durable.files import write_text
    from durable.remote import place

    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        say(f"no report.html: {' and '.join(missing)} not installed (pip install 'symbert[report]')")
        return
    from report.corpus_page import corpus_page
    from report.page import page

    only = place(inputs[0]) if len(inputs) == 1 else None  # texts behind a URL would be fetched anew, and hashed
    write_text(out / "report.html", page(corpus_page(out, only if isinstance(only, Path) else None, command)))


def _refuse_empty_range(harmful_pp: tuple[float, float]) -> None:
    least, most = harmful_pp
    if not least < most:
        raise refuse("--harmful-pp", f"{least:g} {most:g} is empty, expected MIN < MAX")


def _warnings(text: str) -> str | tuple[str, ...]:
    from oscar_prep.configuration import QUALITY_WARNINGS

    chosen = _names(text)
    unknown = [name for name in chosen if name not in QUALITY_WARNINGS]
    if text == "all" or not unknown:
        return text if text == "all" else chosen
    raise refuse("--drop-warnings", f"`{unknown[0]}` is not one of {', '.join(QUALITY_WARNINGS)}, all, none")


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(name.strip() for name in text.split(",") if name.strip())


def _print_funnel(out: str, summary: dict[str, Any]) -> None:
    rows = [("documents", summary["documents"])]
    rows += [(f"  dropped by {name}", -count) for name, count in summary["dropped"].items()]
    rows += [("  no documents", -summary["invalid"])] if summary["invalid"] else []
    rows += [("kept", summary["kept"]), ("tokens", summary["tokens"])]
    rows += [(f"{name} samples", count) for name, count in summary["samples"].items() if count or name == "train"]
    rows += [("tail tokens", summary["tail"])]
    for name, count in rows:
        print(f"{name:<30}{count:>16,}")
    print(f"corpus {out} {summary['corpus_hash'][:16]}… in {summary['seconds']:.1f} s")


def _print_expected(expected: dict[str, Any]) -> None:
    kept, tokens = expected["kept_share"], expected["tokens"]
    read = f"{expected['documents_read']:,} documents, {expected['share_read']:.2%} of the content"
    rows = [("read", read), ("documents", f"≈ {expected['documents']:,}")]
    rows += [(f"  dropped by {name}", f"≈ {share:.1%}") for name, share in expected["dropped_share"].items()]
    rows += [
        ("kept", f"≈ {kept['estimate']:.1%}  (95 %: {kept['low']:.1%} to {kept['high']:.1%})"),
        ("tokens", f"≈ {tokens['estimate']:,}  (95 %: {tokens['low']:,} to {tokens['high']:,})"),
        ("samples", f"≈ {expected['samples']:,}"),
        ("disk", f"≈ {expected['disk_bytes'] / 1e9:.3g} GB"),
        ("memory", f"≈ {expected['memory_bytes'] / 1e9:.2g} GB for {expected['workers']} workers"),
        ("time", f"≈ {expected['hours']:.2g} hours of {expected['workers']} workers"),
    ]
    for name, value in rows:
        print(f"{name:<30}{value}")
