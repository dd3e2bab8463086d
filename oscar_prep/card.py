"""The data card of a corpus: README.md with Hugging Face's metadata, for people who were not there."""

from collections.abc import Mapping
from typing import Any

from blocklists.lock import ATTRIBUTION, LICENCE
from oscar_prep.layout import CONTENT_FIELD

FILES_SHOWN = 50
SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7),
         ("10M<n<100M", 10**8), ("100M<n<1B", 10**9))  # fmt: skip


def data_card(manifest: Mapping[str, Any], command: str) -> str:
    """The card of a corpus with this manifest, made by `command`."""
    sections = [
        _metadata(manifest),
        _summary(manifest),
        _funnel(manifest),
        _filters(manifest),
        _sources(manifest),
        _hashes(manifest, command),
        _attribution(manifest),
    ]
    return "\n".join(section for section in sections if section)


def _metadata(manifest: Mapping[str, Any]) -> str:
    """The YAML block that the Hugging Face hub reads."""
    rows = sum(split["rows"] for split in manifest["splits"].values())
    size = next((name for name, bound in SIZES if rows < bound), "n>1B")
    language = manifest["configuration"]["language"]
    lines = ["---", "pretty_name: Packed corpus for masked language modelling"]
    lines += ["language:", f"- {language}"] if language else []
    lines += ["task_categories:", "- fill-mask", "size_categories:", f"- {size}", "tags:", "- symbert", "dataset_info:"]
    dtype = manifest["splits"]["train"]["dtype"]
    lines += [
        "  features:",
        "  - name: input_ids",
        "    sequence: " + dtype,
        f"    length: {manifest['sequence_length']}",
    ]
    lines.append("  splits:")
    for name, split in manifest["splits"].items():
        size_in_bytes = sum(shard["bytes"] for shard in split["shards"])
        lines += [f"  - name: {name}", f"    num_bytes: {size_in_bytes}", f"    num_examples: {split['rows']}"]
    return "\n".join([*lines, "---", ""])


def _summary(manifest: Mapping[str, Any]) -> str:
    length, tokenizer = manifest["sequence_length"], manifest["tokenizer"]
    samples = ", ".join(f"{split['rows']:,} {name} samples" for name, split in manifest["splits"].items())
    return f"""# A packed corpus

{samples} of {length} tokens of `{tokenizer["name"]}` ({tokenizer["vocabulary_size"]:,} entries). Documents are
`[CLS] text [SEP]` one after the other, cut every {length} tokens: samples begin and end anywhere.

```python
import datasets
corpus = datasets.load_from_disk("path/to/this/folder")
```

`documents/*.parquet` has a row for every document read, with its fate; `symbert inspect` and `report.html` show it.
"""


def _funnel(manifest: Mapping[str, Any]) -> str:
    ledger, length = manifest["ledger"], manifest["sequence_length"]
    rows = [("documents read", ledger["documents"])]
    rows += [(f"dropped by {name}", -count) for name, count in sorted(ledger["dropped"].items())]
    rows += [("broken lines", -ledger["invalid"]), ("**kept**", ledger["kept"])]
    rows += [("tokens", ledger["tokens"])]
    rows += [(f"{name} samples", count) for name, count in sorted(ledger["samples"].items())]
    rows += [("tokens after the last full sample of a file", ledger["tail"])]
    table = "\n".join(f"| {name} | {count:,} |" for name, count in rows)
    notes = "".join(
        f"\n{count:,} documents: {_NOTES[name]}." for name, count in sorted(ledger["notes"].items()) if count
    )
    return f"""## Funnel

A document counts for the first rule that it fails. tokens = {length} × samples + the tokens left over.

| | |
|---|---:|
{table}
{notes}
"""


_NOTES = {
    "bad_url": "no URL that leads to a host, so that no list could judge them; kept as far as this rule goes",
    "harmful_pp_scored": "harmful perplexity scored here, by the KenLM model below",
    "ids_checked": "token ids of nanotoken compared with those of tokenizers, and equal",
    "ids_different": "token ids of nanotoken compared with those of tokenizers, and different",
    "language_identified": "language identified here, by the fastText model below",
    "warnings_computed": "quality warnings computed here, by OSCAR's rules",
}


def _filters(manifest: Mapping[str, Any]) -> str:
    settings = manifest["configuration"]
    minimum, maximum = settings["harmful_pp"]
    warnings = settings["drop_warnings"]
    asked = warnings if warnings == "all" else ", ".join(warnings) or "none"
    lines = [
        f"- blocklist: UT1 categories {', '.join(settings['drop_categories']) or 'none'}",
        f"- harmful_pp: kept is {minimum:g} < harmful_pp < {maximum:g}; without: {settings['missing_harmful_pp']}",
        f"- quality_warnings: dropped are {asked}; without: {settings['missing_warnings']}",
    ]
    if settings["language"]:
        least = settings["min_language_probability"]
        lines.append(f"- language: kept is {settings['language']} with a probability of at least {least:g}")
    if settings["rescore"]:
        lines.append("- judged anew by the models below, whatever the records say")
    if settings["content_field"] != CONTENT_FIELD:
        lines.append(f"- read were the fields `{settings['content_field']}` and `{settings['url_field']}`")
    for name in ("max_documents", "max_tokens"):
        if settings[name]:
            lines.append(f"- {name}: {settings[name]:,}")
    return "## Filters\n\n" + "\n".join(lines) + "\n"


def _sources(manifest: Mapping[str, Any]) -> str:
    units = manifest["units"]
    rows = [
        f"| {_cell(unit['file'])} | {unit['input']['bytes']:,} | `{unit['input']['sha256']}` | "
        f"{unit['input']['checksum'] or 'none'} |"
        for unit in units[:FILES_SHOWN]
    ]
    more = f"\n… and {len(units) - FILES_SHOWN:,} more, listed in manifest.json.\n" if len(units) > FILES_SHOWN else ""
    lost = [f"\nLeft out, since reading them killed the process: {', '.join(map(_cell, manifest['lost']))}.\n"]
    table = "\n".join(["| file | bytes | sha256 | checksum file |", "|---|---:|---|---|", *rows])
    return f"## Sources\n\n{table}\n{more}{lost[0] if manifest['lost'] else ''}"


def _hashes(manifest: Mapping[str, Any], command: str) -> str:
    facts = {"corpus": manifest["corpus_hash"], "tokenizer.json": manifest["tokenizer"]["sha256"]}
    facts |= {
        "blocklist index": manifest["blocklists"],
        "KenLM model": manifest["kenlm"],
        "fastText model": manifest["language_model"],
    }
    lines = "\n".join(f"- {name}: `{sha256}`" for name, sha256 in facts.items() if sha256)
    return f"""## Hashes (sha256)

{lines}

The corpus hash is that of the shards' hashes in name order; `symbert verify` computes it again. Made by

```
{command.replace("```", "` ` `")}
```
"""


def _attribution(manifest: Mapping[str, Any]) -> str:
    if not manifest["configuration"]["drop_categories"]:
        return ""
    return f"""## Attribution

The categories by which documents were dropped are those of the {ATTRIBUTION} ({LICENCE}).
The text of the documents remains under the terms of the pages that it comes from.
"""


def _cell(name: str) -> str:
    """A file name that cannot break a table, nor be taken for HTML."""
    return name.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
