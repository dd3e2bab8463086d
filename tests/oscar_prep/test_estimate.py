"""What a corpus would be, from the start of every file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.main import run
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.estimate import BLOCK_DOCUMENTS, estimate, intervals
from oscar_prep.inputs import discover
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running
from oscar_prep.read import Block, StartReader
from oscar_prep.tokenizer import CorpusTokenizer

Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]


@pytest.fixture
def inputs(tmp_path: Path, oscar: Oscar, write_shard: Write) -> Path:
    """Two files of 4,000 documents of random length, 40 % of which are dropped."""
    draw = np.random.default_rng(0)
    for part in range(2):
        records = []
        for number in range(4000):
            words = draw.choice(["the", "quick", "brown", "fox", "x9y"], draw.integers(1, 60))
            warnings = ["tiny"] if draw.random() < 0.4 else None
            records.append(oscar(" ".join(words), number, quality_warnings=warnings))
        write_shard(tmp_path / f"in/part_{part}.jsonl.zst", records)
    return tmp_path / "in"


def plan_for(inputs: Path, tokenizer: CorpusTokenizer, **settings: Any) -> Plan:
    return Plan(inputs.parent / "out", tuple(discover([inputs]).files), tokenizer, Configuration(**settings))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("share", [0.1, pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_the_size_of_the_whole_content_is_known_from_its_start(
    tmp_path: Path, oscar: Oscar, write_shard: Write, suffix: str, share: float
) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefgh "), (3000, 500))
    path = write_shard(tmp_path / f"part{suffix}", [oscar("".join(row), index) for index, row in enumerate(letters)])
    whole = write_shard(tmp_path / "whole.jsonl", [oscar("".join(row), index) for index, row in enumerate(letters)])
    reader = StartReader(path, share)
    data = b"".join(line + b"\n" for block in reader.blocks() if isinstance(block, Block) for line in block.lines)
    assert whole.read_bytes().startswith(data)
    assert data.endswith(b"\n")
    assert len(data) == pytest.approx(share * whole.stat().st_size, abs=140_000)
    assert len(data) <= share * whole.stat().st_size * 1.01
    assert reader.content_bytes == pytest.approx(whole.stat().st_size, rel=0.025)


def test_the_truth_lies_in_the_intervals_and_nothing_is_written(
    tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer
) -> None:
    expected = estimate(plan_for(inputs, tokenizer), Running(), 0.5)
    whole = estimate(plan_for(inputs, tokenizer), Running(), 1.0)
    assert expected is not None
    assert whole is not None
    assert whole["documents"] == pytest.approx(8000, rel=0.001)
    assert expected["kept_share"]["low"] < 0.6 < expected["kept_share"]["high"]
    assert expected["tokens"]["low"] < whole["tokens"]["estimate"] < expected["tokens"]["high"]
    assert expected["dropped_share"].keys() == {"blocklist", "harmful_pp", "quality_warnings"}
    assert expected["dropped_share"]["quality_warnings"] == pytest.approx(0.4, abs=0.05)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_parquet_is_estimated_from_its_first_rows(tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer) -> None:
    (tmp_path / "parquet").mkdir()
    for path in inputs.iterdir():
        data = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
        records = [json.loads(line) for line in data.splitlines()]
        schema = pa.infer_type(records)
        table = pa.Table.from_pylist(records, pa.schema(list(schema)))
        pq.write_table(table, tmp_path / "parquet" / f"{path.stem}.parquet", row_group_size=500)
    lines = estimate(plan_for(inputs, tokenizer), Running(), 0.5)
    rows = estimate(plan_for(tmp_path / "parquet", tokenizer), Running(), 0.5)
    whole = estimate(plan_for(tmp_path / "parquet", tokenizer), Running(), 1.0)
    assert lines is not None
    assert rows is not None
    assert whole is not None
    assert (rows["documents_read"], whole["documents_read"]) == (4000, 8000)
    assert whole["documents"] == 8000
    assert rows["documents"] == pytest.approx(8000, rel=0.02)
    assert rows["kept_share"]["estimate"] == pytest.approx(lines["kept_share"]["estimate"], abs=0.01)
    assert rows["tokens"]["low"] < whole["tokens"]["estimate"] < rows["tokens"]["high"]


def test_too_small_a_sample_is_refused(inputs: Path, tokenizer: CorpusTokenizer) -> None:
    with pytest.raises(PrepareError, match=r"documents in the first 1e-06 of the input are too few"):
        estimate(plan_for(inputs, tokenizer), Running(), 1e-6)


def test_damage_in_what_is_read_is_an_error(inputs: Path, tokenizer: CorpusTokenizer) -> None:
    path = inputs / "part_1.jsonl.zst"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000 + path.read_bytes()[5100:])
    with pytest.raises(PrepareError, match=r"part_1\.jsonl\.zst is damaged"):
        estimate(plan_for(inputs, tokenizer), Running(), 0.5)


def test_intervals_of_independent_documents_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    held = np.zeros(2)
    for _ in range(200):
        kept = draw.random(2000) < 0.55
        sizes = draw.lognormal(7, 1, 2000).astype(np.int64)
        tokens = np.where(kept, sizes // 4, 0)
        share, rate = intervals(kept, tokens, sizes, 0.0)
        assert share.low < share.estimate < share.high
        held += (share.low <= 0.55 <= share.high, rate.low <= 0.55 / 4 <= rate.high)
    assert (held > 180).all()


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    draw = np.random.default_rng(2)
    alike = np.repeat(draw.random(40) < 0.5, BLOCK_DOCUMENTS)
    ones = np.ones(len(alike), np.int64)
    mixed = draw.permutation(alike)
    (wide, _), (narrow, _) = intervals(alike, ones, ones, 0.0), intervals(mixed, ones, ones, 0.0)
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_the_command_prints_what_to_expect(
    inputs: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", str(inputs), "--estimate", "0.5", "--tokenizer", str(tokenizer_folder), "--quiet"]
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tokens"]["low"] < document["tokens"]["high"]
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "kept                          ≈ 5" in printed or "kept                          ≈ 6" in printed


def test_out_is_needed_to_make_a_corpus(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", str(inputs)]) == 2
    assert "missing option '--out'" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.shared
def test_of_twenty_orders_of_the_shared_corpus_seventeen_intervals_hold_the_truth(tmp_path: Path, shared: Path) -> None:
    lines = [
        line
        for path in sorted((shared / "oscar2301/en_meta").glob("*.zst"))
        for line in pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read().splitlines(keepends=True)
    ]
    tokenizer = CorpusTokenizer.find(str(shared / "bert-base-uncased"))
    held, widths = np.zeros(2, int), []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(lines))
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for part, indices in enumerate(np.array_split(order, 6)):
            content = pa.Codec("zstd", 3).compress(b"".join(lines[index] for index in indices), asbytes=True)
            (folder / f"part_{part}.jsonl.zst").write_bytes(content)
        expected = estimate(plan_for(folder, tokenizer), Running(2), 0.1)
        assert expected is not None
        kept, tokens = expected["kept_share"], expected["tokens"]
        held += (
            kept["low"] <= 6175 / 11_059 <= kept["high"],
            tokens["low"] <= 17_966_769 <= tokens["high"],
        )
        widths.append(((kept["high"] - kept["low"]) / 2, (tokens["high"] - tokens["low"]) / 2 / tokens["estimate"]))
    print(f"of 20 intervals {held[0]} hold the kept share and {held[1]} the tokens; widest ±", np.max(widths, axis=0))
    assert (held >= 17).all()
    assert (np.max(widths, axis=0) <= (0.035, 0.15)).all()
