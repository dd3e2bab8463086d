"""Streams of ids cut into exact rows, on disk and in memory."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable.files import file_sha256, write_json
from oscar_prep.pack import Packer
from oscar_prep.shards import BATCH_ROWS, dataset_files, read_rows, shard_writer


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 9))
def test_rows_and_tail_are_the_stream_again(sizes: list[int], length: int) -> None:
    stream = np.arange(sum(sizes), dtype=np.uint16)
    packer = Packer(length, stream.dtype)
    rows = [packer.add(part) for part in np.split(stream, np.cumsum(sizes))[: len(sizes)]]
    full = np.concatenate([np.empty((0, length), np.uint16), *rows])
    assert packer.tokens == len(stream) == full.size + packer.tail
    assert packer.tail < length
    assert (full.reshape(-1) == stream[: full.size]).all()


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
@pytest.mark.parametrize("rows", [0, 1, BATCH_ROWS, 2 * BATCH_ROWS + 5])
def test_a_shard_reads_back_whatever_pieces_it_was_written_in(tmp_path: Path, rows: int, dtype: str) -> None:
    values = np.arange(rows * 6).astype(dtype).reshape(-1, 6)
    hashes = set()
    for pieces in (1, 7, 1000):
        with shard_writer(tmp_path, "train/shard.arrow", 6, values.dtype) as writer:
            for piece in np.array_split(values, pieces):
                writer.add(piece)
        assert writer.record.rows == rows
        hashes.add(writer.record.sha256)
    read = [np.empty((0, 6), dtype), *read_rows(tmp_path / "train/shard.arrow", 6)]
    assert (np.concatenate(read) == values).all()
    assert hashes == {file_sha256(tmp_path / "train/shard.arrow")}


def test_datasets_opens_what_was_written_and_tells_two_corpora_apart(tmp_path: Path) -> None:
    fingerprints = set()
    for seed in (0, 1):
        corpus = tmp_path / str(seed)
        values = np.random.default_rng(seed).integers(0, 65_536, (10, 8)).astype(np.uint16)
        records = []
        for index, part in enumerate((values[:0], values)):
            with shard_writer(corpus, f"train/data-{index}.arrow", 8, values.dtype) as writer:
                writer.add(part)
            records.append(writer.record)
        for name, content in dataset_files({"train": records}, 8, values.dtype).items():
            write_json(corpus / name, content)
        train = datasets.load_from_disk(str(corpus))["train"]
        assert train["input_ids"][:] == values.tolist()
        assert train.features["input_ids"].length == 8
        fingerprints.add(train._fingerprint)
    assert len(fingerprints) == 2


def test_a_shard_that_does_not_read_back_is_never_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pa.ArrowInvalid), shard_writer(tmp_path, "train/shard.arrow", 4, np.dtype("uint16")) as writer:
        monkeypatch.setattr(writer, "close", lambda: None)
    assert list((tmp_path / "train").iterdir()) == []
