"""The model card of a checkpoint: what it is, what it was made of, how it did, and how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable.settings import read_toml
from report.corpus import read_corpus
from report.errors import ReportError
from train.metrics import read_metrics
from train.positions import untrained_positions

# Query, key and score of one head; d is the head size.
FORMULAS: Mapping[str, str] = {
    "original": "q = xWqᵀ + bq, k = xWkᵀ + bk, score = q·k / √d (BERT's own)",
    "symmetric": "q = xWqᵀ + bq, score = q·q / √d: no key projection (Courtois et al., 2024, arXiv 2406.06366)",
    "pairwise": "q = xWqᵀ + bq, score = qUqᵀ / √d with a free d×d matrix U for each head and layer, no key projection "
    "(Courtois et al., 2024, arXiv 2406.06366)",
    "shared": "s = xWᵀ + b, q = s∘a, k = s∘c, v = s∘e, score = q·k / √d (Kowsher et al., 2024, arXiv 2412.00359)",
    "additive": "additive attention after Fastformer (Wu et al., 2021), for HybridBERT (Srinivasagan et al., 2024)",
}
SIZES = (
    "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "max_position_embeddings",
    "vocab_size", "norm_placement", "position_embedding", "hidden_act", "feed_forward_bias", "attention_logit_gain",
)  # fmt: skip


def model_card(
    name: str, config: Mapping[str, Any], *, parameters: int, run: Path | None, corpus: Path | None, glue: Path | None
) -> str:
    """The card as Markdown with the hub's front matter; a part whose folder is None says that it is not recorded.

    `config` are the fields of config.json. Raises ReportError where a folder is not what it was given as.
    """
    operators = config["attention_operator"]
    names = [operators] if isinstance(operators, str) else list(dict.fromkeys(operators))
    parts = [
        _front_matter(),
        f"# {name}\n\nA BERT with attention operator **{', '.join(names)}**, pre-trained by masked language modelling.",
        "## Attention\n\n" + "\n".join(f"- `{one}`: {FORMULAS[one]}" for one in names) + _layers(operators),
        "## Sizes\n\n" + _table({"parameters": f"{parameters:,}", **{key: config[key] for key in SIZES}}),
        "## Loading\n\n" + _loading(config),
        "## Training\n\n" + (_training(run) if run else "No run folder was given: not recorded."),
        "## Corpus\n\n" + (_funnel(corpus) if corpus else "No corpus folder was given: not recorded."),
        "## GLUE\n\n" + (_glue(glue) if glue else "No GLUE folder was given: not recorded."),
        "## Limits\n\n" + _limits(config, names),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter() -> str:
    lines = ("library_name: transformers", "pipeline_tag: fill-mask", "tags:", "- symbert", "- bert")
    return "\n".join(("---", *lines, "---"))


def _layers(operators: str | list[str]) -> str:
    return "" if isinstance(operators, str) else "\n\nFrom the first layer to the last: " + ", ".join(operators) + "."


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(("| | |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in rows.items())))


def _loading(config: Mapping[str, Any]) -> str:
    (architecture,) = config.get("architectures") or ["SymbertForMaskedLM"]
    auto_class = architecture.replace("Symbert", "AutoModel")
    if auto_class == "AutoModelModel":
        auto_class = "AutoModel"
    return (
        "It takes transformers 5.17 or newer. The folder holds the model's code. `trust_remote_code` runs it: read it, "
        "and pin the revision you read.\n\n"
        "```python\n"
        f"from transformers import {auto_class}, AutoTokenizer\n\n"
        'where = {"pretrained_model_name_or_path": "OWNER/NAME", "revision": "COMMIT", "trust_remote_code": True}\n'
        "tokenizer = AutoTokenizer.from_pretrained(**where)  # which reads the model's configuration, too\n"
        f"model = {auto_class}.from_pretrained(**where)\n"
        "```\n\nWith symbert installed, `import symbert` takes the place of `trust_remote_code`."
    )


def _training(run: Path) -> str:
    recipe = read_toml(run / "recipe.toml")
    evaluations = [row for row in read_metrics(run) if row["kind"] == "evaluation"]
    if not evaluations:
        raise ReportError(f"{run} holds no evaluation, expected metrics.jsonl with at least one")
    schedule, training, optimizer = recipe["schedule"], recipe["training"], recipe["optimizer"]
    facts = {
        "steps": f"{schedule['max_steps']:,}, {schedule['warmup_steps']:,} of them warm-up",
        "batch": f"{training['batch_size']:,} samples of {recipe['data']['sequence_length']} tokens",
        "peak learning rate": optimizer["learning_rate"],
        "weight decay": optimizer["weight_decay"],
        "masked": f"{recipe['masking']['probability']:.0%}",
        "seed": training["seed"],
    }
    head = "| step | tokens | evaluation loss | standard error | accuracy |\n|---|---|---|---|---|\n"
    return (
        _table(facts) + "\n\nOn held-out text with fixed masks:\n\n" + head + "\n".join(map(_row, _chosen(evaluations)))
    )


def _chosen(evaluations: list[dict[str, Any]], most: int = 12) -> list[dict[str, Any]]:
    """At most so many rows, evenly spaced, the first and the last among them."""
    if len(evaluations) <= most:
        return evaluations
    last = len(evaluations) - 1
    return [evaluations[round(index * last / (most - 1))] for index in range(most)]


def _row(row: Mapping[str, Any]) -> str:
    return (
        f"| {row['step']:,} | {row['tokens']:,} | {row['evaluation_loss']:.4f} | "
        f"{row['evaluation_standard_error']:.4f} | {row['evaluation_accuracy']:.2%} |"
    )


def _funnel(corpus: Path) -> str:
    manifest = read_corpus(corpus)
    ledger = manifest["ledger"]
    rows = {
        "documents": ledger["documents"],
        **{f"dropped by {reason}": count for reason, count in ledger["dropped"].items()},
        "invalid": ledger["invalid"],
        "kept": ledger["kept"],
        "tokens": ledger["tokens"],
        **{f"{split} samples": count for split, count in ledger["samples"].items()},
    }
    facts = {key: f"{value:,}" for key, value in rows.items()}
    return _table(facts) + f"\n\nTokenizer {manifest['tokenizer']['name']}; corpus hash `{manifest['corpus_hash']}`."


def _glue(glue: Path) -> str:
    path = glue / "table.md"
    if not path.is_file():
        raise ReportError(f"{glue} holds no table.md, expected a folder of `symbert glue`")
    return path.read_text("utf-8").strip()


def _limits(config: Mapping[str, Any], names: list[str]) -> str:
    untrained = untrained_positions(config)
    lines = [
        f"- Inputs are at most {config['max_position_embeddings']} tokens" + (f"; {untrained}." if untrained else "."),
        "- Pre-training rows are cut without regard to documents: attention crosses their borders.",
        "- The text is from the web; the model repeats its biases.",
    ]
    if "additive" in names:
        lines.append("- Layers of additive attention have no probabilities of pairs of tokens to inspect.")
    elif config["norm_placement"] == "post":
        lines.append("- `symbert export --format bert` turns it into a stock BERT that needs no code of its own.")
    return "\n".join(lines)
