"""`symbert demo`: the whole way, from an OSCAR-shaped corpus to a GLUE table, without a download."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.chain import Chain, as_typed
from cli.console import AsJson, Quiet, print_json, say

OPERATORS = ("original", "pairwise")
IDENTITY = "demo.json"


@dataclass(frozen=True)
class Scale:
    """How much of everything; the tests make less."""

    texts: int | None = None
    vocabulary_size: int = 2_048
    validation_samples: int = 300
    validation_share: float = 0.1
    max_steps: int | None = None
    """None: as the recipe says."""
    train_sentences: int = 800
    dev_sentences: int = 200
    epochs: int = 3
    seeds: int = 2


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that is made; the same command again goes on.")] = Path(
        "demo"
    ),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Make a corpus from Python's own documentation, pre-train two operators on it, fine-tune, score and report."""
    summary = run_demo(out, Scale(), Chain(quiet=quiet), quiet=quiet)
    if as_json:
        print_json(summary)
    else:
        from cli.demo_summary import as_text

        print(as_text(out, summary))
    return 0


def run_demo(out: Path, scale: Scale, chain: Chain, *, quiet: bool) -> dict[str, Any]:
    """Everything that is not there yet; returns what each command printed, and what to compare it with."""
    corpus, runs = out / "corpus", {operator: out / "runs" / operator for operator in OPERATORS}
    made = _make_inputs(out, scale, quiet=quiet)
    shards, tokenizer = str(out / "oscar" / "en_meta"), out / "tokenizer"
    if not tokenizer.exists():
        size = ["--vocabulary-size", str(scale.vocabulary_size)]
        chain.run("tokenizer", "train", shards, "--out", str(tokenizer), *size)
    funnel = chain.run(
        "prepare", shards, "--out", str(corpus), "--tokenizer", str(tokenizer), *_prepare_options(out, scale)
    )
    settings = _pretrain_options(corpus, tokenizer, scale)
    losses = chain.run_side_by_side(
        [["pretrain", *settings, "--operator", operator, "--out", str(run)] for operator, run in runs.items()]
    )
    scores = chain.run("glue", *map(str, runs.values()), *_glue_options(out, scale))
    return {
        "inputs": made,
        "funnel": funnel,
        "unigram_loss": _unigram_loss(corpus),
        "losses": dict(zip(OPERATORS, losses, strict=True)),
        "glue": scores,
        "report": _report(out, corpus, list(runs.values()), chain),
        "next": _next_commands(out, corpus, tokenizer, scale),
    }


def _prepare_options(out: Path, scale: Scale) -> list[str]:
    from cli.demo_corpus import CATEGORY

    samples, share = str(scale.validation_samples), str(scale.validation_share)
    return [
        "--sequence-length", "32", "--validation-samples", samples, "--validation-share", share,
        "--blocklists", str(out / "blocklists"), "--drop-categories", CATEGORY, "--missing-harmful-pp", "keep",
    ]  # fmt: skip


def _pretrain_options(corpus: Path, tokenizer: Path, scale: Scale) -> list[str]:
    # A Python without some of its modules may have too little text for the whole vocabulary.
    size = len((tokenizer / "vocab.txt").read_text("utf-8").splitlines())
    options = ["--data", str(corpus), "--recipe", "demo"]
    if size != Scale.vocabulary_size:
        options += ["--set", f"model.vocab_size={size}"]
    if scale.max_steps is not None:
        options += ["--max-steps", str(scale.max_steps), "--set", f"schedule.warmup_steps={scale.max_steps // 10}"]
    return options


def _glue_options(out: Path, scale: Scale) -> list[str]:
    protocol = [f"epochs={scale.epochs}", "learning_rate=3e-4", "max_length=32"]
    settings = [word for setting in protocol for word in ("--set", setting)]
    options = ["--data-dir", str(out / "glue"), "--tasks", "cola,rte", "--seeds", str(scale.seeds), *settings]
    return [*options, "--device", "cpu", "--out", str(out / "scores")]


def _report(out: Path, corpus: Path, runs: list[Path], chain: Chain) -> str | None:
    """Everything on one page; None, and a word about it, where the libraries that draw it are not installed."""
    if not all(find_spec(library) for library in ("jinja2", "matplotlib")):
        say("no report page: pip install 'symbert[report]' for it")
        return None
    page = str(out / "report.html")
    chain.run("report", *map(str, runs), "--corpus", str(corpus), "--glue", str(out / "scores"), "--out", page)
    return page


def _make_inputs(out: Path, scale: Scale, *, quiet: bool) -> dict[str, Any]:
    """Shards, blocklists and tasks, unless they are there; refuses a folder that was made otherwise."""
    import platform

    from cli.demo_corpus import write_blocklists, write_corpus
    from cli.demo_documentation import standard_library
    from cli.demo_tasks import held_out, write_tasks
    from cli.record import recorded
    from durable.files import write_json

    identity = {"python": platform.python_version(), **asdict(scale)}
    found = recorded(out, IDENTITY, identity)
    if found is not None:
        return found
    if not quiet:
        say(f"reading the documentation strings of Python {platform.python_version()}")
    texts = standard_library()[: scale.texts]
    train, dev = held_out(texts)
    write_corpus(train, out / "oscar" / "en_meta")
    write_blocklists(out / "blocklists")
    sizes = write_tasks(train, dev, out / "glue", {"train": scale.train_sentences, "dev": scale.dev_sentences})
    made: dict[str, Any] = {"identity": identity, "texts": {"corpus": len(train), "held_out": len(dev)}, "tasks": sizes}
    write_json(out / IDENTITY, made)
    return made


def _unigram_loss(corpus: Path) -> float:
    """Nats a token of the validation split costs by its frequency in the training split (one added to each count)."""
    import numpy as np

    from oscar_prep.manifest import read_manifest
    from oscar_prep.shards import read_rows

    manifest = read_manifest(corpus)
    size = manifest["tokenizer"]["vocabulary_size"]
    special = [token["id"] for token in manifest["tokenizer"]["special_tokens"].values()]
    counts = {}
    for split in ("train", "validation"):
        counts[split] = np.zeros(size, np.int64)
        for shard in manifest["splits"][split]["shards"]:
            for rows in read_rows(corpus / shard["file"], manifest["sequence_length"]):
                counts[split] += np.bincount(rows.reshape(-1), minlength=size)
        counts[split][special] = 0
    smoothed = counts["train"] + 1
    logs = -np.log(smoothed / smoothed.sum())
    return float((counts["validation"] * logs).sum() / counts["validation"].sum())


def _next_commands(out: Path, corpus: Path, tokenizer: Path, scale: Scale) -> list[str]:
    run = str(out / "runs" / "symmetric")
    return [
        as_typed(command)
        for command in (
            ["verify", str(corpus)],
            ["pretrain", *_pretrain_options(corpus, tokenizer, scale), "--operator", "symmetric", "--out", run],
            ["glue", run, *_glue_options(out, scale)],
        )
    ]
