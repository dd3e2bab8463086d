"""`symbert prepare` and `symbert verify` as a user types them."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cli.main import run
from tests.corpora import write_corpus

PAPERS_SAMPLES = "d0f902005a2f17d1011c4a06c3cb1912d2a070a84fee9bc4b6eac59ae920c324"


def samples_sha256(corpus: Path) -> str:
    import datasets

    digest = hashlib.sha256()
    for batch in datasets.load_from_disk(str(corpus))["train"].data.to_batches():
        digest.update(batch.column(0).flatten().to_numpy().astype("<u2").tobytes())
    return digest.hexdigest()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run([str(argument) for argument in arguments] + ["--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def recompressed(source: Path, target: Path, form: str) -> None:
    """The six files of the shared corpus in another form."""
    for path in sorted(source.glob("*.zst")):
        data = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
        middle = data.find(b"\n", len(data) // 2) - 100  # within a line
        if form == ".jsonl":
            content = data
        elif form == ".jsonl.gz":
            sink = pa.BufferOutputStream()
            with pa.CompressedOutputStream(sink, "gzip") as stream:
                stream.write(data)
            content = sink.getvalue().to_pybytes()
        else:
            codec = pa.Codec("zstd", 1)
            content = b"".join(codec.compress(part, asbytes=True) for part in (data[:middle], data[middle:]))
        target.mkdir(exist_ok=True)
        (target / path.name.replace(".jsonl.zst", form)).write_bytes(content)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ["as it is", ".jsonl", pytest.param(".jsonl.gz", marks=pytest.mark.long), ".jsonl.zst"]
)
def test_the_shared_corpus_gives_the_reference_counts_and_samples(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    source = shared / "oscar2301/en_meta"
    if form != "as it is":
        recompressed(source, tmp_path / "in", form)
        source = tmp_path / "in"
    summary = run_json(
        capsys, "prepare", source, "--out", tmp_path / "out", "--tokenizer", shared / "bert-base-uncased",
        "--validation-samples", 0, "--quiet",
    )  # fmt: skip
    assert summary["documents"] == 11_059
    assert summary["kept"] == 6_175
    assert summary["dropped"] == {"blocklist": 462, "harmful_pp": 309, "quality_warnings": 4_113}
    assert summary["tokens"] == 17_966_769
    assert summary["samples"] == {"train": 35_088, "validation": 0, "surplus": 0}
    assert samples_sha256(tmp_path / "out") == PAPERS_SAMPLES
    assert run_json(capsys, "verify", tmp_path / "out")["damage"] == []


@pytest.mark.shared
def test_oscar_2201_is_read_too(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_json(
        capsys, "prepare", shared / "oscar2201/data.jsonl", "--out", tmp_path / "out", "--tokenizer",
        shared / "bert-base-uncased", "--validation-samples", 0, "--missing-harmful-pp", "keep",
        "--drop-warnings", "none", "--quiet",
    )  # fmt: skip
    assert (summary["documents"], summary["kept"]) == (63, 63)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    lines = [
        {"content": "the fox " * 30, "warc_headers": {"warc-target-uri": f"https://host{number % 3}.example/{number}"}}
        for number in range(30)
    ]
    path = tmp_path / "in" / "part.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def arguments(shard: Path, tmp_path: Path) -> list[str]:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    return [
        "prepare", str(shard), "--out", str(tmp_path / "out"), "--tokenizer", str(tmp_path / "tokenizer"),
        "--validation-samples", "0", "--sequence-length", "16", "--missing-harmful-pp", "keep", "--quiet",
    ]  # fmt: skip


def test_the_funnel_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "documents" in printed
    assert "kept                                        30" in printed
    assert run(["verify", str(tmp_path / "out")]) == 0
    assert "1 units as the manifest says" in capsys.readouterr().out


FOREIGN = {
    "text": "the fox " * 30,
    "meta": {"title": "fox", "page": {"link": "a"}},
    "id": 5,
    "url": "https://a.example",
}


@pytest.mark.parametrize(
    ("command", "fields", "reason"),
    [
        ("prepare", "--content-field body", "Object missing required field `body`"),
        ("prepare", "--content-field id", "Expected `str`, got `int` - at `$.id`"),
        ("prepare", "--content-field text --url-field id", "Expected `str | null`, got `int` - at `$.id`"),
        ("estimate", "--content-field body", "Object missing required field `body`"),
        ("tokenizer train", "--content-field body", "Object missing required field `body`"),
    ],
)
def test_a_wrong_field_is_refused_by_the_first_records_before_the_rest_is_read(
    arguments: list[str], shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str,
    fields: str, reason: str,
) -> None:  # fmt: skip
    if command == "tokenizer train":
        arguments = ["tokenizer", "train", str(shard), "--out", str(tmp_path / "out"), "--quiet"]
    elif command == "estimate":
        arguments = [*arguments, "--estimate", "0.5"]
    shard.write_text("not JSON\n" + (json.dumps(FOREIGN) + "\n") * 5000, encoding="utf-8")
    for part in range(20):  # what is not looked at could not be read
        (shard.parent / f"part_{part}.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd cut")
    arguments[arguments.index(str(shard))] = str(shard.parent)
    assert run([*arguments, *fields.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: none of the first 999 records is a document; the first is part.jsonl line 2: ")
    assert reason in error
    assert error.endswith("the fields to read; text is in `text`, `url`, `meta.title`, `meta.page.link`\n")
    assert not (tmp_path / "out").exists()


def test_first_records_without_a_text_are_the_runs_to_judge_where_others_have_one_or_all_may_be_put_aside(
    arguments: list[str], shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shard.read_text(encoding="utf-8")
    shard.write_text(json.dumps(FOREIGN) + "\n" + lines, encoding="utf-8")
    assert run([*arguments, "--max-bad-share", "0.1"]) == 3
    shard.write_text((json.dumps(FOREIGN) + "\n") * 1001 + lines, encoding="utf-8")
    out = ["--out", str(shard.parents[1] / "other"), "--max-bad-share"]
    capsys.readouterr()
    assert run([*arguments, *out, "0.99"]) == 1
    assert "none of the first 1,000 records" in capsys.readouterr().err
    assert run([*arguments, *out, "1"]) == 3


def test_what_was_dropped_and_what_is_no_document_add_up_where_nothing_is_left(
    arguments: list[str], shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard.write_text("broken\n" * 3, encoding="utf-8")
    assert run([*arguments, "--max-bad-share", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no training sample: 0 of 3 lines were kept, with 0 tokens")
    assert "3 that are no documents; the first is part.jsonl line 1: JSON is malformed" in error
    dropped = re.findall(r"([0-9]+) (?:by|that)", error.partition("dropped were")[2])
    assert sum(map(int, dropped)) == 3


@pytest.mark.parametrize("command", ["prepare", "tokenizer train"])
def test_without_msgspec_a_command_that_reads_a_corpus_says_in_one_line_what_to_install(
    arguments: list[str],
    shard: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    training = ["tokenizer", "train", str(shard), "--out", str(tmp_path / "out"), "--quiet"]
    assert run(arguments if command == "prepare" else training) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: reading a corpus needs the package msgspec, which is not installed\n")
    assert printed.endswith("hint: pip install 'symbert[prepare]'\n")
    assert printed.count(": ") == 2
    assert not (tmp_path / "out").exists()


def test_fields_that_contradict_each_other_are_refused_before_anything_is_written(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--content-field", "page", "--url-field", "page.url"]) == 1
    assert "read for two purposes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_nanotoken_does_not_compute_is_told(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([argument for argument in arguments if argument != "--quiet"]) == 0
    assert "its normalizer is None, not BertNormalizer" in capsys.readouterr().err


def test_blocklists_judge_urls_beside_the_records_categories(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lists" / "sect").mkdir(parents=True)
    (tmp_path / "lists" / "sect" / "domains").write_text("host1.example\n")
    lists = ["--blocklists", tmp_path / "lists", "--drop-categories", "sect"]
    assert run_json(capsys, *arguments, *lists)["dropped"]["blocklist"] == 10


def test_broken_lines_within_the_share_end_with_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str], shard: Path
) -> None:
    shard.write_bytes(shard.read_bytes() + b"{broken\n")
    assert run_json(capsys, *arguments, "--max-bad-share", 0.1, code=3)["invalid"] == 1


def test_damage_ends_with_3_and_is_listed(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(arguments) == 0
    (tmp_path / "out/train/data-00000-of-00001.arrow").unlink()
    found = run_json(capsys, "verify", tmp_path / "out", code=3)
    assert found["damage"] == [{"file": "train/data-00000-of-00001.arrow", "problem": "missing"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train/data-00000-of-00001.arrow", "dataset_dict.json", "tokenizer/tokenizer.json", "manifest.json"]
)
def test_what_verify_finds_is_mended_by_its_hint(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    assert run(arguments) == 0
    damaged = tmp_path / "out" / name
    whole = damaged.read_bytes()
    damaged.write_bytes(whole.replace(b'"kept": ', b'"kept": 1') if name == "manifest.json" else whole[:-9] + whole[:9])
    capsys.readouterr()
    assert run(["verify", str(tmp_path / "out")]) == 3
    printed = capsys.readouterr()
    assert name in printed.out
    assert printed.err.startswith("\nhint: delete what is named, then run the command that made the corpus again")
    damaged.unlink()
    assert run(arguments) == 0
    assert damaged.read_bytes() == whole
    assert run(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--max-bad-share", "0", "--sequence-length", "10000"], "no training sample"),
        (["--blocklists", "nowhere"], "nowhere does not exist, expected a blocklist index or a folder of lists"),
        (["--tokenizer", "/"], "/ holds no tokenizer.json"),
        (["--estimate", "1", "--missing-harmful-pp", "score"], "--missing-harmful-pp score needs a KenLM model"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, changed: list[str], message: str
) -> None:
    assert run(arguments + changed) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err.splitlines()[0]
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_shards_hold_little_endian_uint16(arguments: list[str], tmp_path: Path) -> None:
    assert run(arguments) == 0
    data = (tmp_path / "out/train/data-00000-of-00001.arrow").read_bytes()
    assert np.array([2, 1, 3] * 5, "<u2").tobytes() in data  # one unknown word a document: no pre-tokenizer


def test_a_sample_longer_than_any_model_takes_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prepare", str(tmp_path), "--out", str(tmp_path / "out"), "--sequence-length", "99999999999"]) == 2
    assert "'--sequence-length'" in capsys.readouterr().err


def test_a_corpus_made_within_its_input_folder_is_no_input_of_the_same_command_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "tiny")
    (tmp_path / "in").mkdir()
    record = {"content": "w1 w2 w3 w4 w5 w6 w7 w8", "metadata": {"harmful_pp": 500.0}}
    (tmp_path / "in/part_1.jsonl").write_text(20 * (json.dumps(record) + "\n"))
    arguments = [
        "prepare", tmp_path / "in", "--out", tmp_path / "in/out", "--tokenizer", tmp_path / "tiny/tokenizer",
        "--sequence-length", "8", "--validation-samples", "0", "--no-report",
    ]  # fmt: skip
    first = run_json(capsys, *arguments)
    assert run_json(capsys, *arguments)["corpus_hash"] == first["corpus_hash"]
    (tmp_path / "in/out/units/configuration.json").unlink()
    assert run([*map(str, arguments[:3]), str(tmp_path / "other"), *map(str, arguments[4:])]) == 0
    assert f"left out what is a corpus already: {tmp_path / 'in/out'}\n" in capsys.readouterr().err
    assert json.loads((tmp_path / "other/manifest.json").read_text())["corpus_hash"] == first["corpus_hash"]
    (command,) = [line for line in (tmp_path / "other/README.md").read_text().splitlines() if "--no-report" in line]
    assert run(shlex.split(command.strip("`$ "))[1:]) == 0


def test_a_slip_in_a_category_is_refused_and_a_name_of_ones_own_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", str(tmp_path / "absent"), "--out", str(tmp_path / "out"), "--drop-categories"]
    assert run([*arguments, "sect,adlt"]) == 2
    assert "`adlt` is not a category of UT1; near it are adult" in capsys.readouterr().err
    assert run([*arguments, "adult,zzz"]) == 1
    told = capsys.readouterr().err
    assert "note: `zzz` is not a category of UT1" in told
    assert "absent does not exist" in told
    assert run([*arguments, "adult,porn"]) == 1
    assert "note: " not in capsys.readouterr().err


def test_the_categories_dropped_by_default_are_known() -> None:
    from blocklists.ut1 import KNOWN_CATEGORIES
    from oscar_prep.configuration import DROPPED_CATEGORIES

    assert set(DROPPED_CATEGORIES) <= set(KNOWN_CATEGORIES)


def test_a_run_without_a_page_imports_no_pandas(arguments: list[str]) -> None:
    code = "import sys; from cli.main import run; assert run(sys.argv[1:]) == 0; print('pandas' in sys.modules)"
    words = [sys.executable, "-c", code, *arguments, "--no-report"]
    ended = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.stdout.endswith("False\n"), ended.stderr
