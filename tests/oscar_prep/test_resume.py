"""A corpus that is run again: what stands is compared, what does not is made anew, and nothing changes unseen."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.verify import verify

Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]
Make = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[2]
NAMES = [f"data-{part:05}-of-00003" for part in range(3)]


@pytest.fixture
def inputs(tmp_path: Path, oscar: Oscar, write_shard: Write) -> Path:
    """Three files of 40 documents that are all kept, with a bad line at the end of each."""
    for part in range(3):
        records = [oscar("the quick brown fox " * (1 + number % 5), 40 * part + number) for number in range(40)]
        write_shard(tmp_path / f"in/part_{part}.jsonl", [*records, b"{broken"])
    return tmp_path / "in"


@pytest.fixture
def make(inputs: Path, tokenizer: CorpusTokenizer) -> Make:
    """Prepares the inputs; keywords are settings."""

    def run(out: Path, running: Running = Running(max_bad_share=0.1), **settings: Any) -> dict[str, Any]:  # noqa: B008
        chosen = {"sequence_length": 16, "validation_samples": 3, "validation_share": 0.3, **settings}
        manifest = prepare(Plan(out, tuple(discover([inputs]).files), tokenizer, Configuration(**chosen)), running)
        assert manifest is not None
        return manifest

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".symbert.lock" and ".status" not in path.parts
    }


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_validation_shard_that_was_damaged_is_not_cut(tmp_path: Path, make: Make, tokenizer: CorpusTokenizer) -> None:
    from oscar_prep.manifest import finish
    from oscar_prep.record import UnitRecord

    made = make(tmp_path / "out", validation_samples=60)
    records = [UnitRecord.from_json(unit) for unit in made["units"]]
    files = tuple(discover([tmp_path / "in"]).files)
    plan = Plan(tmp_path / "out", files, tokenizer, Configuration(sequence_length=16, validation_samples=3))
    shard = tmp_path / "out" / f"validation/{NAMES[0]}.arrow"
    flip_a_bit(shard)
    before = shard.read_bytes()
    with pytest.raises(PrepareError, match=rf"{NAMES[0]}\.arrow is damaged: its sha256 is not the one") as error:
        finish(plan, records, 0.1)
    assert error.value.__notes__ == ["delete it, and the same command again makes it anew from its input"]
    assert shard.read_bytes() == before


def test_an_input_that_changed_is_refused_though_its_shard_is_gone(
    tmp_path: Path, make: Make, inputs: Path, oscar: Oscar, write_shard: Write
) -> None:
    make(tmp_path / "out")
    (tmp_path / f"out/train/{NAMES[1]}.arrow").unlink()
    before = contents(tmp_path / "out")
    write_shard(inputs / "part_1.jsonl", [oscar("another text")] * 40)
    with pytest.raises(PrepareError, match=r"part_1\.jsonl has changed since this corpus was begun"):
        make(tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("part", ["train", "validation", "documents", "quarantine"])
def test_a_damaged_file_is_made_anew_by_the_same_command_which_says_so(tmp_path: Path, make: Make, part: str) -> None:
    make(tmp_path / "out")
    before = contents(tmp_path / "out")
    (path,) = (tmp_path / "out").glob(f"{part}/{NAMES[0]}.*")
    flip_a_bit(path)
    heard: list[str] = []
    make(tmp_path / "out", Running(max_bad_share=0.1, notice=heard.append))
    name = path.relative_to(tmp_path / "out")
    assert heard == [f"part_0.jsonl was made anew: {name}: its sha256 is not the one that was recorded"]
    assert contents(tmp_path / "out") == before
    make(tmp_path / "out", Running(max_bad_share=0.1, notice=heard.append))
    assert len(heard) == 1


def test_a_corpus_of_which_a_part_is_made_anew_is_not_finished_meanwhile(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "out")
    (tmp_path / f"out/train/{NAMES[1]}.arrow").unlink()
    with pytest.raises(PrepareError, match="more than the share of 0 that --max-bad-share allows"):
        make(tmp_path / "out", Running(max_bad_share=0.0))
    with pytest.raises(PrepareError, match="is a corpus that is not finished"):
        verify(tmp_path / "out")
    make(tmp_path / "out")
    assert verify(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"max_documents": 50}, {"max_tokens": 800}], ids=str)
def test_a_budgeted_corpus_is_run_again_by_two_workers_without_a_write_to_its_units(
    tmp_path: Path, make: Make, settings: dict[str, int]
) -> None:
    running = Running(2, max_bad_share=0.1)
    first = make(tmp_path / "out", running, **settings)
    assert [unit["budget"] is not None for unit in first["units"]] == [False, True]
    (tmp_path / f"out/documents/{NAMES[0]}.parquet").unlink()
    before = stamps(tmp_path / "out")
    assert make(tmp_path / "out", running, **settings) == first
    changed = {name for name, stamp in stamps(tmp_path / "out").items() if before.get(name) != stamp}
    assert all(NAMES[0] in name for name in changed)
    assert verify(tmp_path / "out") == []


def stamps(corpus: Path) -> dict[str, int]:
    """When each file of a unit was last written."""
    return {
        str(path.relative_to(corpus)): path.stat().st_mtime_ns for path in corpus.glob("*/data-*") if path.is_file()
    }


@pytest.mark.slow
def test_a_validation_shard_that_was_cut_grows_again_where_a_unit_before_it_is_lost(
    tmp_path: Path, make: Make, inputs: Path, tokenizer_folder: Path
) -> None:
    for part in (1, 2):  # quarantine/ is written for files with bad lines only: the others pass
        lines = (inputs / f"part_{part}.jsonl").read_bytes().splitlines(keepends=True)
        (inputs / f"part_{part}.jsonl").write_bytes(b"".join(lines[:-1]))
    first, second, _ = make(tmp_path / "whole", validation_samples=10_000)["units"]
    samples = first["validation"]["rows"] + second["validation"]["rows"] // 2
    out = tmp_path / "out"
    assert make(out, validation_samples=samples)["units"][2]["validation"]["rows"] == 0
    (out / f"train/{NAMES[0]}.arrow").unlink()
    command = [
        sys.executable, "-m", "cli", "prepare", str(inputs), "--out", str(out), "--tokenizer", str(tokenizer_folder),
        "--workers", "1", "--sequence-length", "16", "--validation-samples", str(samples), "--no-report",
        "--validation-share", "0.3", "--max-bad-share", "0.1", "--quiet",
    ]  # fmt: skip
    settings = {**os.environ, "SYMBERT_FAILPOINT": "quarantine.before-rename:1:kill"}
    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 3, result.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["lost"] == ["part_0.jsonl"]
    assert manifest["units"][0]["validation"]["rows"] == second["validation"]["rows"]
    assert manifest["splits"]["validation"]["rows"] == samples
    assert verify(out) == []
    (out / "README.md").unlink()
    make(out, validation_samples=samples)
    make(tmp_path / "fresh", validation_samples=samples)
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_bad_line_behind_the_budget_is_in_no_quarantine_whatever_the_number_of_workers(
    tmp_path: Path, make: Make
) -> None:
    for workers in (1, 2):
        make(tmp_path / str(workers), Running(workers, max_bad_share=0.1), max_documents=50)
    assert [path.name for path in (tmp_path / "2/quarantine").iterdir()] == [f"{NAMES[0]}.jsonl"]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    (tmp_path / f"2/quarantine/{NAMES[1]}.jsonl").touch()
    assert [(found.file, found.problem) for found in verify(tmp_path / "2")] == [
        (f"quarantine/{NAMES[1]}.jsonl", "not in the manifest")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{}", "is damaged: `file` is missing"),
        ('{"file": 1}', "is damaged: `file` is 1, expected"),
    ],
)
def test_a_record_that_is_none_is_refused_until_it_is_deleted(
    tmp_path: Path, make: Make, content: str, message: str
) -> None:
    make(tmp_path / "out")
    before = contents(tmp_path / "out")
    record = tmp_path / f"out/units/{NAMES[1]}.json"
    record.write_text(content)
    with pytest.raises(PrepareError, match=f"{NAMES[1]}.json {message}") as error:
        make(tmp_path / "out")
    assert error.value.__notes__ == ["delete it, and the same command again makes it anew from its input"]
    record.unlink()
    make(tmp_path / "out")
    assert contents(tmp_path / "out") == before
