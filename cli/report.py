"""`symbert report`: the study on one page."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.console import AsJson, Quiet, print_json, say, show

Format = Literal["html", "md", "csv", "latex", "json"]


def report(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="RUN", help="Run folders of `symbert pretrain`.")] = None,
    out: Annotated[
        Path, typer.Option(help="The file to write; with --format csv or latex a folder, one file a table.")
    ] = Path("report.html"),
    corpus: Annotated[Path | None, typer.Option(help="A corpus folder: its funnel and its ledger.")] = None,
    glue: Annotated[Path | None, typer.Option(help="A GLUE folder: table, intervals, tests.")] = None,
    published: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The CSV files of Courtois et al. (2024), to stand beside one's own numbers."),
    ] = None,
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="By the suffix of --out, else html."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every chart there too, as SVG and PDF.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put runs, corpus and GLUE scores on one self-contained page, with the commands that repeat each number.

    It reads folders and changes none of them; what it wrote is printed on stdout.
    """
    from oscar_prep.manifest import check_listed
    from report.build import Inputs, build_report
    from report.corpus import read_corpus
    from report.write import check_places, chosen_format, write_report

    kind = chosen_format(output_format, out)
    check_places(out, kind, figures, [*(runs or ()), *filter(None, (corpus, glue, published))])
    words = [str(run) for run in runs or ()]
    folders = {"--corpus": corpus, "--glue": glue, "--published": published, "--figures": figures, "--out": out}
    for option, path in folders.items():
        words += [option, str(path)] if path is not None else []
    if corpus is not None:
        read_corpus(corpus)
        check_listed(corpus)
    made = build_report(Inputs(tuple(runs or ()), corpus, glue, published, [*words, "--format", kind]))
    written = [str(path) for path in write_report(made, out, kind, figures)]
    counts = {"sections": len(made.sections), "tables": len(made.tables()), "charts": len(made.charts())}
    if as_json:
        print_json({"written": written, **counts})
        return
    show("\n".join(written))
    if not quiet:
        say(", ".join(f"{count} {name}" for name, count in counts.items()))
