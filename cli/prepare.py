"""`symbert prepare`: OSCAR shards → packed corpus."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.console import AsJson, Quiet, command_line, print_json, progress, say, visible
from cli.corpus_plan import check_parameters, plan_of
from cli.engine import RUNNING, EngineName, RayAddress, ShipFiles, SliceOption
from cli.values import number
from durable.errors import few
from durable.signals import EXIT_DONE, EXIT_QUARANTINED, StopRequest

if TYPE_CHECKING:
    from oscar_prep.plan import Plan
    from oscar_prep.prepare import Running

FILTERS, BUDGETS = "Filters", "Budgets"

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
    sequence_length: Annotated[int, typer.Option(min=3, max=65_536, help="Tokens in a sample.")] = 512,
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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Files at a time (as many as there are cores).", rich_help_panel=RUNNING)
    ] = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    ship_files: ShipFiles = False,
    slice_: SliceOption = None,
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
    from durable.workers import start_importing

    start_importing("oscar_prep.prepare")  # before all else: it takes as long as all that this process does until then
    check_parameters(context.params)
    from durable.engines import engine as engine_of
    from durable.progress import unheard
    from oscar_prep.prepare import Running

    plan = plan_of(context.params, quiet)
    with (
        StopRequest() as stop,
        engine_of(engine, ray_address, workers) as where,
        progress("prepare", "B", quiet=quiet) as callback,
    ):
        running = Running(workers, max_bad_share, callback, stop, where, ship_files, unheard if quiet else say)
        if estimate is not None:
            return _estimate(plan, running, estimate, as_json)
        started = time.monotonic()
        manifest = _make(plan, running, slice_)
    if manifest is None:
        return _stopped(running)
    if isinstance(manifest, list):
        return _sliced(manifest)
    summary = summarise(manifest, time.monotonic() - started)
    _write_pages(plan, manifest, command_line(context), inputs, report)
    if as_json:
        print_json(summary)
    else:
        _print_funnel(str(plan.target or plan.out), summary)
    return _tell_what_is_missing(plan.out, manifest, summary)


def _make(plan: "Plan", running: "Running", slice_: str | None) -> dict[str, Any] | list[str] | None:
    """The manifest; of a slice, the files that were lost; None if stopped early."""
    if slice_ is None:
        from oscar_prep.prepare import prepare as make

        return make(plan, running)
    from durable.slices import parse_slice
    from oscar_prep.slices import finish_slices, prepare_slice

    chosen = parse_slice(slice_)
    return finish_slices(plan, running) if chosen is None else prepare_slice(plan, running, chosen)


def _sliced(lost: list[str]) -> int:
    if lost:
        say(f"error: left out, for they kill the process that reads them: {few(lost)}")
    return EXIT_QUARANTINED if lost else EXIT_DONE


def _tell_what_is_missing(out: Path, manifest: dict[str, Any], summary: dict[str, Any]) -> int:
    if manifest["lost"]:
        say(f"error: left out, for they kill the process that reads them: {few(manifest['lost'])}")
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

    write_text(plan.out / "README.md", visible(data_card(manifest, command)))
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
    from oscar_prep.worker import keep_pandas_out
    from report.corpus_page import corpus_page
    from report.page import page

    keep_pandas_out()
    only = place(inputs[0]) if len(inputs) == 1 else None  # texts behind a URL would be fetched anew, and hashed
    drawn = page(corpus_page(out, only if isinstance(only, Path) else None, command))
    write_text(out / "report.html", visible(drawn))


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
