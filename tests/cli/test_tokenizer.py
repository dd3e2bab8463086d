import gzip
import json
from pathlib import Path

import pytest

from cli.main import run

DOCUMENTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A lazy dog is a dog that jumps over no fox, quick or brown.",
]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "oscar"
    folder.mkdir()
    lines = [json.dumps({"content": document, "warc_headers": {}, "metadata": {}}) for document in DOCUMENTS]
    (folder / "part_1.jsonl").write_text(lines[0] + "\n", "utf-8")
    (folder / "part_2.jsonl.gz").write_bytes(gzip.compress(lines[1].encode()))
    return folder


def test_a_tokenizer_is_trained_on_every_document(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shards.parent / "tokenizer"
    assert run(["tokenizer", "train", str(shards), "--out", str(out), "--vocabulary-size", "80", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["documents"] == 2
    assert printed["invalid"] == 0
    assert len((out / "vocab.txt").read_text("utf-8").splitlines()) == printed["vocabulary_size"] <= 80


def test_an_existing_folder_is_left_alone(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tokenizer", "train", str(shards), "--out", str(shards)]) == 1
    assert f"error: {shards} exists already" in capsys.readouterr().err
    assert len(list(shards.iterdir())) == 2


def test_a_line_that_is_no_document_is_counted_and_told_by_the_exit_code(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (shards / "part_1.jsonl").open("a") as file:
        file.write("not JSON\n")
    assert run(["tokenizer", "train", str(shards), "--out", str(shards.parent / "new"), "--quiet"]) == 3
    printed = capsys.readouterr()
    assert "1 lines are no documents" in printed.err
    assert "from 2 documents" in printed.out


def test_a_damaged_file_is_an_error_that_names_it_and_leaves_nothing(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (shards / "part_2.jsonl.gz").read_bytes()
    (shards / "part_2.jsonl.gz").write_bytes(whole[:-12])
    assert run(["tokenizer", "train", str(shards), "--out", str(shards.parent / "new")]) == 1
    assert "part_2.jsonl.gz is damaged" in capsys.readouterr().err
    assert not (shards.parent / "new").exists()


def test_records_of_another_field_are_refused_with_the_field_that_was_expected_and_read_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS))
    command = ["tokenizer", "train", str(tmp_path / "part.jsonl"), "--out", str(tmp_path / "new"), "--quiet"]
    assert run(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: none of the first 2 records is a document; the first is part.jsonl line 1: Object m"
    )
    assert error.endswith("hint: --content-field and --url-field name the fields to read; text is in `text`\n")
    assert not (tmp_path / "new").exists()
    assert run([*command, "--content-field", "text"]) == 0
    assert "from 2 documents" in capsys.readouterr().out
