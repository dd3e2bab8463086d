"""`symbert tokenizer train`: a WordPiece vocabulary of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import AsJson, Quiet, print_json, progress, say
from cli.corpus_plan import found_inputs
from durable.signals import EXIT_DONE, EXIT_QUARANTINED

tokenizer = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train a tokenizer.")


@tokenizer.callback()
def _group() -> None:
    """Train a tokenizer."""


@tokenizer.command("train")
def train(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Shards of OSCAR, or folders or URLs of them; nothing is filtered."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder, for `symbert prepare --tokenizer` and AutoTokenizer.")],
    vocabulary_size: Annotated[int, typer.Option(min=1, help="Tokens; fewer if the text has fewer.")] = 30_522,
    cased: Annotated[bool, typer.Option("--cased", help="Keep capitals and accents.")] = False,
    content_field: Annotated[str, typer.Option(metavar="FIELD", help="The records' text.")] = "content",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Train a WordPiece tokenizer like BERT's; the same text gives the same tokenizer, byte for byte."""
    from oscar_prep.first_records import check_first_records
    from oscar_prep.layout import Layout
    from oscar_prep.shard_texts import ShardTexts
    from oscar_prep.wordpiece import check_new_folder, save, train_wordpiece

    check_new_folder(out)
    files = found_inputs(inputs, quiet).files
    layout = Layout(content_field)
    check_first_records(files, layout)
    with progress("tokenizer", "B", quiet=quiet) as callback:
        texts = ShardTexts(files, layout, passes=2, progress=callback)
        trained = train_wordpiece(texts, vocabulary_size, lower_case=not cased)
    save(trained, out)
    size = trained.get_vocab_size()
    if as_json:
        print_json({"tokenizer": str(out), "vocabulary_size": size, "documents": texts.documents, "invalid": texts.bad})
    else:
        print(f"tokenizer {out}: {size:,} tokens from {texts.documents:,} documents")
    if texts.bad:
        say(f"{texts.bad:,} lines are no documents and were left out")
    return EXIT_QUARANTINED if texts.bad else EXIT_DONE
