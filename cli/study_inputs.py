"""What a study starts from: that of nano is made here, Python's documentation strings as shards of OSCAR, and the
demo's two tiny tasks; that of the paper's sizes is checked."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.corpus_tokenizer import find_tokenizer

if TYPE_CHECKING:
    from cli.study import Sources


@dataclass(frozen=True)
class Sizes:
    """How much of it; the tests make less."""

    modules: int | None = None
    train_sentences: int = 800
    dev_sentences: int = 200


def check_sources(sources: "Sources", *, asks_the_hub: bool) -> None:
    """Refuse what a later command would refuse, days into the study: shards, tokenizer, tasks. Writes nothing.

    Raises the refusal of that command. What is on the hub alone is looked for only if that may be asked.
    """
    from durable.remote import place
    from oscar_prep.inputs import discover
    from train.glue.files import check_files
    from train.glue.tasks import chosen_tasks

    discover([place(text) for text in sources.inputs])
    if asks_the_hub or Path(sources.tokenizer).exists() or sources.tokenizer.startswith((".", "/")):
        find_tokenizer(sources.tokenizer)
    if sources.data_dir is not None:
        check_files(chosen_tasks(["all"]), Path(sources.data_dir))


def write_inputs(out: Path, sizes: Sizes) -> dict[str, Any]:
    """Write `oscar/en_meta` and `glue` under `out`; returns how many texts and rows there are.

    The corpus is all that the documentation strings hold, not their running prose alone as in the demo: five times
    the tokens, without which no operator leaves the plateau. The modules whose sentences are the tasks' dev sets are
    left out of it.
    """
    from cli.demo_corpus import write_corpus
    from cli.demo_documentation import blocks_of, standard_library
    from cli.demo_tasks import held_out, write_tasks

    train, dev = held_out(standard_library()[: sizes.modules])
    unseen = {text.module for text in dev}
    texts = [text for text in standard_library(blocks_of)[: sizes.modules] if text.module not in unseen]
    write_corpus(texts, out / "oscar" / "en_meta")
    limits = {"train": sizes.train_sentences, "dev": sizes.dev_sentences}
    tasks = write_tasks(train, dev, out / "glue", limits)
    return {"sizes": asdict(sizes), "texts": len(texts), "held_out": len(dev), "tasks": tasks}
