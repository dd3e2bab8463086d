"""The data card says what the manifest says."""

from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from oscar_prep.card import data_card

ATTRIBUTED = "Université Toulouse Capitole"


def manifest(**settings: Any) -> dict[str, Any]:
    configuration = {
        "drop_categories": ["adult"], "harmful_pp": [5.0, 1e5], "missing_harmful_pp": "drop", "drop_warnings": "all",
        "missing_warnings": "keep", "language": None, "min_language_probability": 0.8, "rescore": False,
        "content_field": "content", "url_field": "warc_headers.warc-target-uri", "max_documents": None,
        "max_tokens": None, **settings,
    }  # fmt: skip
    shard = {"file": "train/data-00000-of-00001.arrow", "rows": 1234, "bytes": 5678, "sha256": "ab" * 32}
    unit = {"file": "a|<b>.jsonl", "input": {"bytes": 99, "sha256": "cd" * 32, "checksum": None}}
    return {
        "corpus_hash": "ef" * 32, "sequence_length": 16, "configuration": configuration, "blocklists": "01" * 32,
        "kenlm": None, "language_model": None, "lost": [],
        "tokenizer": {"name": "toy", "sha256": "23" * 32, "vocabulary_size": 4321},
        "splits": {"train": {"rows": 1234, "dtype": "uint16", "shards": [shard]}},
        "ledger": {
            "documents": 31_000, "kept": 20_000, "invalid": 7, "dropped": {"blocklist": 10_993}, "tokens": 19_750,
            "samples": {"train": 1234}, "tail": 6, "notes": {"bad_url": 5, "harmful_pp_scored": 0},
        },
        "units": [unit],
    }  # fmt: skip


def test_every_count_and_hash_stands_on_the_card() -> None:
    card = data_card(manifest(), "symbert prepare a --out b")
    for part in (
        "31,000",
        "20,000",
        "-10,993",
        "1,234",
        "19,750",
        "cd" * 32,
        "ef" * 32,
        "01" * 32,
        "23" * 32,
    ):
        assert part in card
    assert "symbert prepare a --out b" in card
    assert "5 documents: no URL that leads to a host" in card
    assert "scored here" not in card
    assert "KenLM model" not in card


def test_the_metadata_block_is_what_the_hub_reads() -> None:
    import yaml

    block = data_card(manifest(language="en"), "x").split("---")[1]
    metadata = yaml.safe_load(block)
    assert metadata["language"] == ["en"]
    assert metadata["size_categories"] == ["1K<n<10K"]
    assert metadata["dataset_info"]["splits"] == [{"name": "train", "num_bytes": 5678, "num_examples": 1234}]


def test_the_lists_are_attributed_where_categories_decide() -> None:
    assert ATTRIBUTED in data_card(manifest(), "x")
    assert "CC BY-SA 4.0" in data_card(manifest(), "x")
    assert ATTRIBUTED not in data_card(manifest(drop_categories=[]), "x")


def test_names_of_files_cannot_break_the_table_or_become_html() -> None:
    card = data_card(manifest(), "x")
    assert r"a\|&lt;b>.jsonl" in card
    assert "<b>" not in card


def test_prepare_writes_the_card_with_the_command_that_was_typed(tmp_path: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    text = "some words of a page "
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator([text], vocab_size=60, show_progress=False)
    (tmp_path / "tokenizer").mkdir()
    trained.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    source = tmp_path / "the pages.jsonl"
    source.write_text(f'{{"content": "{text * 9}"}}\n' * 9)
    options = ["--validation-samples", "0", "--sequence-length", "16", "--missing-harmful-pp", "keep"]
    command = ["prepare", str(source), "--out", str(tmp_path / "corpus"), "--tokenizer", str(tmp_path / "tokenizer")]
    assert run([*command, "--harmful-pp", "4", "9", *options, "--quiet"]) == 0
    card = (tmp_path / "corpus" / "README.md").read_text("utf-8")
    assert f"symbert prepare '{source}' --out {tmp_path}/corpus" in card
    assert "--harmful-pp 4.0 9.0" in card
    assert "--quiet" in card
    assert "4 < harmful_pp < 9" in card


@pytest.mark.parametrize("name", ["documents read", "tokens", "train samples"])
def test_the_funnel_has_its_rows(name: str) -> None:
    assert f"| {name} |" in data_card(manifest(), "x")
