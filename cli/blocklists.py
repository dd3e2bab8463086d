"""`symbert blocklists`: fetch the UT1 lists, compile them into one index, ask it about a URL."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import AsJson, Quiet, print_json, progress, say, show
from cli.values import refuse

app = typer.Typer(help="Fetch UT1 blocklists, compile them into one index, ask it about a URL.", no_args_is_help=True)

Lists = Annotated[Path, typer.Argument(help="A folder of UT1 lists, or an index made from one.")]


@app.command()
def fetch(
    out: Annotated[Path, typer.Option(help="The folder that the lists replace when all is well.")] = Path("ut1"),
    source: Annotated[
        str,
        typer.Option(metavar="university|github|URL", help="github is a daily mirror; or any https address."),
    ] = "university",
    sha256: Annotated[str | None, typer.Option(help="Refuse any archive but this one.")] = None,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Refuse a larger archive.")] = 1024,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Download the lists (CC BY-SA 4.0) and pin their date and sha256 in a lock file.

    A failed download leaves the last good copy as it is.
    """
    from blocklists.fetch import SOURCES
    from blocklists.fetch import fetch as fetch_lists

    url = SOURCES.get(source, source)
    if "://" not in url:
        raise refuse("--source", f"{source} is neither one of {', '.join(SOURCES)} nor an https address")
    with progress("fetching", "B", quiet=quiet) as callback:
        lock = fetch_lists(url, out, sha256=sha256, most_bytes=max_megabytes << 20, progress=callback)
    if as_json:
        print_json(lock)
    else:
        show(f"{out}: {len(lock['files'])} files of {lock['archive_bytes']:,} bytes, sha256 {lock['archive_sha256']}")
        show(f"{lock['licence']}, {lock['attribution']}")


@app.command()
def compile(
    folder: Annotated[Path, typer.Argument(help="A folder of UT1 lists: category/domains, category/urls.")],
    out: Annotated[Path, typer.Option(help="The index file.")] = Path("ut1.index"),
    categories: Annotated[str, typer.Option(help="Comma-separated names, or all.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Compile the lists into one file that all workers map into memory, 11 to 12 bytes an entry."""
    from blocklists.compile import compile_to

    wanted = None if categories == "all" else [name.strip() for name in categories.split(",")]
    header = compile_to(folder, out, wanted)
    if as_json:
        print_json({name: header[name] for name in ("entries", "categories", "aliases", "lists", "source", "licence")})
        return
    for name, facts in header["lists"].items():
        oddities = "; ".join(f"{count:,} {what}" for what, count in facts["oddities"].items())
        show(f"{name:<24}{facts['hosts']:>12,} hosts {facts['addresses']:>10,} addresses  {oddities}".rstrip())
    show(f"{out}: {header['entries']:,} entries, {out.stat().st_size:,} bytes; {header['licence']}")


@app.command()
def lookup(
    lists: Lists,
    urls: Annotated[list[str], typer.Argument(help="URLs, or - to read one a line.", metavar="URL...")],
    as_json: AsJson = False,
) -> None:
    """Say which entries of which categories name a URL."""
    from blocklists.index import Index

    index = Index.of_folder(lists) if lists.is_dir() else Index.open(lists)
    verdicts = [_verdict(index, url) for url in _each(urls)]
    if as_json:
        print_json(verdicts)
        return
    for verdict in verdicts:
        show(f"{verdict['url']}: {verdict['verdict']}")
        for match in verdict["matches"]:
            show(f"  {', '.join(match['categories'])}: {match['kind']} {match['entry']}")
    if any(verdict["verdict"] == "bad_url" for verdict in verdicts):
        say("note: a bad_url leads to no host, so no list can name it")


def _each(urls: list[str]) -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin] if urls == ["-"] else urls


def _verdict(index: Any, url: str) -> dict[str, Any]:
    matches = index.matches(url)
    if matches is None:
        return {"url": url, "verdict": "bad_url", "matches": []}
    return {
        "url": url,
        "verdict": "listed" if matches else "not listed",
        "matches": [
            {"entry": match.entry, "kind": match.kind, "categories": list(match.categories)} for match in matches
        ],
    }
