"""`symbert inspect` and `symbert thresholds`: why a corpus is what it is, and what it might have been."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.console import AsJson, one_line, print_json, show
from cli.values import refuse
from durable.errors import with_hint

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A corpus folder that `symbert prepare` made.")]
Split = Literal["train", "validation"]
SHOWN_CHARACTERS = 600


def inspect(
    corpus: Folder,
    sample: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="Decode a sample, document by document.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Of which split.")] = "train",
    url: Annotated[str | None, typer.Option(metavar="URL", help="Was it kept, and if not, why?")] = None,
    near: Annotated[
        str | None, typer.Option(metavar="SCORE=X", help="Documents just below and above: harmful_pp=5.")
    ] = None,
    top_dropped: Annotated[bool, typer.Option("--top-dropped", help="Hosts with most dropped documents.")] = False,
    count: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    inputs: Annotated[
        Path | None, typer.Option("--input", metavar="DIR", help="The input, to show documents' text.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a sample back to its documents, or a document to its fate."""
    asked = [name for name, value in _questions(sample, url, near, top_dropped).items() if value]
    if len(asked) != 1:
        error = typer.BadParameter(f"asked for {' and '.join(asked) or 'nothing'}, expected one thing to look at")
        raise with_hint(error, "--sample 0, --url URL, --near harmful_pp=5 or --top-dropped")
    border = None if near is None else _score_and_value(near)
    from oscar_prep.errors import PrepareError
    from oscar_prep.manifest import check_listed
    from oscar_prep.provenance import Corpus
    from oscar_prep.reopen import InputFiles

    check_listed(corpus)
    opened = Corpus(corpus)
    files = InputFiles(opened, inputs) if inputs else None
    if sample is not None:
        _show_sample(opened, sample, split, as_json)
    elif top_dropped:
        _show_hosts(opened.top_dropped(count), as_json)
    elif url is not None:
        documents = opened.by_url(url)
        if not documents:
            raise PrepareError(f"{corpus} has read no document of {url}")
        _show(as_json, {"documents": _described(opened, documents, files)})
    elif border is not None:
        score, threshold = border
        below, above = opened.near(score, threshold, count)
        sides = {f"{score} below {threshold:g}": below, f"{score} from {threshold:g}": above}
        _show(as_json, {name: _described(opened, documents, files) for name, documents in sides.items()})


def thresholds(
    corpus: Folder,
    min_harmful_pp: Annotated[
        str, typer.Option(metavar="X,Y,…", help="Least harmful perplexities to try.")
    ] = "3,5,10,20",
    as_json: AsJson = False,
) -> None:
    """Print the funnel that other thresholds would give, without touching the text.

    Tokens of documents that the corpus dropped are estimated by their bytes, and marked ≈.
    """
    from oscar_prep.manifest import check_listed
    from oscar_prep.provenance import Corpus
    from oscar_prep.thresholds import as_table, funnels

    try:
        minima = [float(text) for text in min_harmful_pp.split(",")]
    except ValueError:
        raise refuse("--min-harmful-pp", f"{min_harmful_pp} is not a list of numbers such as 3,5,10") from None
    check_listed(corpus)
    opened = Corpus(corpus)
    found = funnels(opened, minima)
    if as_json:
        print_json([vars(funnel) | {"exact": funnel.exact} for funnel in found])
    else:
        _print_table(as_table(found))


def _questions(sample: int | None, url: str | None, near: str | None, top_dropped: bool) -> dict[str, bool]:
    return {
        "--sample": sample is not None,
        "--url": url is not None,
        "--near": near is not None,
        "--top-dropped": top_dropped,
    }


def _score_and_value(text: str) -> tuple[str, float]:
    from oscar_prep.provenance import SCORES

    score, _, value = text.partition("=")
    try:
        threshold = float(value)
    except ValueError:
        raise refuse("--near", f"{text} is not SCORE=NUMBER, such as harmful_pp=5") from None
    if score not in SCORES:
        raise refuse("--near", f"`{score}` is not a score, expected one of {', '.join(SCORES)}")
    return score, threshold


def _show_sample(corpus: Any, index: int, split: str, as_json: bool) -> None:
    pieces = corpus.sample(index, split)
    if as_json:
        shown = [{**vars(piece), "document": _finite(piece.document)} for piece in pieces]
        print_json({"sample": index, "split": split, "pieces": shown})
        return
    for piece in pieces:
        document = piece.document
        begins = "" if piece.document_start == 0 else f", from its token {piece.document_start:,} on"
        show(f"── tokens {piece.start} to {piece.end - 1}: {_url(document)} ({_place(document)}{begins})")
        show(piece.text)


def _show_hosts(hosts: list[Any], as_json: bool) -> None:
    if as_json:
        print_json([vars(host) for host in hosts])
        return
    _print_table(
        [
            {
                "host": host.host,
                "dropped": f"{host.dropped:,}",
                "kept": f"{host.kept:,}",
                "reasons": ", ".join(f"{reason} {count:,}" for reason, count in host.reasons.items()),
            }
            for host in hosts
        ]
    )


def _described(corpus: Any, documents: list[dict[str, Any]], files: Any) -> list[dict[str, Any]]:
    described = []
    for document in documents:
        failing = [vars(found) for found in corpus.failing(document)]
        entry = {**_finite(document), "kept": not failing, "failing": failing}
        if not failing:
            entry["sample"] = corpus.first_sample(document)
        if files is not None:
            entry["text"], entry["problem"] = _text(files, document)
        described.append(entry)
    return described


def _finite(document: dict[str, Any]) -> dict[str, Any]:
    """A document whose scores are numbers that JSON has; a column of Parquet may hold NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in document.items()
    }


def _text(files: Any, document: dict[str, Any]) -> tuple[str | None, str | None]:
    from oscar_prep.errors import PrepareError

    try:
        return files.text(document), None
    except PrepareError as error:
        return None, str(error)


def _show(as_json: bool, groups: dict[str, list[dict[str, Any]]]) -> None:
    if as_json:
        print_json(groups)
        return
    for name, documents in groups.items():
        if len(groups) > 1:
            show(f"{name}: {'' if documents else 'no document'}")
        for document in documents:
            _print_document(document)


def _print_document(document: dict[str, Any]) -> None:
    fate = "kept" if document["kept"] else f"dropped by {document['failing'][0]['rule']}"
    score = "" if document["harmful_pp"] is None else f", harmful_pp {document['harmful_pp']:.6g}"
    show(f"{_url(document)} ({_place(document)}): {fate}{score}, {document['bytes']:,} bytes")
    for failing in document["failing"]:
        show(f"  {failing['rule']}: {one_line(failing['value'])}; wanted {failing['wanted']}")
    if document["kept"]:
        number = document["sample"]
        place = "in the tail that fills no sample" if number is None else f"from sample {number} on"
        show(f"  {document['tokens']:,} tokens of {document['split']}, {place}")
    if document.get("problem"):
        show(f"  {document['problem']}")
    if document.get("text") is not None:
        text = document["text"]
        show("  │ " + text[:SHOWN_CHARACTERS].replace("\n", "\n  │ ") + (" …" if len(text) > SHOWN_CHARACTERS else ""))


def _url(document: dict[str, Any]) -> str:
    return one_line(document["url"] or "no URL")


def _place(document: dict[str, Any]) -> str:
    return f"{one_line(document['file'])} line {document['line']:,}"


def _print_table(rows: list[dict[str, str]]) -> None:
    """Rows with the same keys, as columns; numbers to the right."""
    if not rows:
        return
    rows = [{name: one_line(cell) for name, cell in row.items()} for row in rows]
    columns = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        cells = [
            row[name].ljust(widths[name]) if name in ("host", "reasons") else row[name].rjust(widths[name])
            for name in columns
        ]
        show("  ".join(cells).rstrip())
