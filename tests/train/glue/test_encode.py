from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.glue.conftest import CheckpointFactory
from train.errors import TrainError
from train.glue.checkpoint import find_subject
from train.glue.encode import (
    batches_by_tokens,
    encode_task,
    groups_of_similar_length,
    load_encoded,
    padded,
    save_encoded,
)
from train.glue.loading import load_tokenizer
from train.glue.read import read_task
from train.glue.tasks import TASKS

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=7)


def partitions(order: list[int], values: list[int], overhead: int) -> int:
    """The least cost over every way to cut the ordered lengths, by trying them all."""
    if not order:
        return 0
    return min(
        cut * values[order[cut - 1]] + overhead + partitions(order[cut:], values, overhead)
        for cut in range(1, len(order) + 1)
    )


@given(lengths, st.integers(0, 50))
def test_groups_hold_every_example_once_and_cost_as_little_as_can_be(values: list[int], overhead: int) -> None:
    groups = groups_of_similar_length(values, overhead)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(values)))
    cost = sum(len(group) * max(values[position] for position in group) + overhead for group in groups)
    assert cost == partitions(sorted(range(len(values)), key=values.__getitem__), values, overhead)


@given(lengths, st.integers(1, 100))
def test_evaluation_batches_hold_every_row_once_and_keep_to_their_tokens(values: list[int], tokens: int) -> None:
    batches = batches_by_tokens(np.array(values), tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(values)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(values[row] for row in batch) <= tokens


@pytest.fixture
def encoded(glue: Path, checkpoint: CheckpointFactory) -> Any:
    return encode_task(read_task(TASKS["rte"], glue), find_subject(checkpoint(), print), 13)


def test_examples_are_those_of_the_checkpoints_tokenizer(
    encoded: Any, glue: Path, checkpoint: CheckpointFactory
) -> None:
    tokenizer = load_tokenizer(find_subject(checkpoint(), print))
    split, text = encoded.train, read_task(TASKS["rte"], glue).train.text
    for row in range(len(split)):
        expected = tokenizer(text[0][row], text[1][row], truncation=True, max_length=13, return_token_type_ids=True)
        part = slice(split.offsets[row], split.offsets[row + 1])
        assert split.ids[part].tolist() == expected["input_ids"]
        assert split.types[part].tolist() == expected["token_type_ids"]
    assert split.lengths.max() == 13


def test_a_batch_is_padded_to_its_longest_example(encoded: Any) -> None:
    rows = np.arange(7)
    batch = padded(encoded.train, rows, torch.device("cpu"))
    lengths = encoded.train.lengths[rows]
    assert batch["input_ids"].shape == (7, lengths.max())
    assert batch["attention_mask"].sum(1).tolist() == lengths.tolist()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    assert batch["token_type_ids"].max() == 1


def test_a_batch_of_one_length_has_no_attention_mask(encoded: Any) -> None:
    rows = np.flatnonzero(encoded.train.lengths == 13)
    assert "attention_mask" not in padded(encoded.train, rows, torch.device("cpu"))


@pytest.mark.parametrize("task", ["cola", "rte", "stsb"])
def test_a_task_comes_back_from_its_arrow_files_as_it_was(
    task: str, glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    subject, data = find_subject(checkpoint(), print), read_task(TASKS[task], glue)
    direct = encode_task(data, subject, 13)
    place = save_encoded(tmp_path, data, subject, 13)
    loaded = load_encoded(place, TASKS[task])
    assert loaded.splits.keys() == direct.splits.keys()
    for name, split in direct.splits.items():
        for part in ("ids", "types", "offsets", "labels"):
            expected, found = getattr(split, part), getattr(loaded.splits[name], part)
            assert (found == expected).all(), part
            assert found.dtype == expected.dtype, part
        assert loaded.splits[name].padding_id == split.padding_id


def test_a_task_is_tokenized_once_per_data_tokenizer_and_length(
    glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    data = read_task(TASKS["rte"], glue)
    place = save_encoded(tmp_path, data, find_subject(checkpoint("pairwise"), print), 13)
    made = (place / "train.arrow").stat().st_mtime_ns
    assert save_encoded(tmp_path, data, find_subject(checkpoint("symmetric"), print), 13) == place
    assert (place / "train.arrow").stat().st_mtime_ns == made
    assert save_encoded(tmp_path, data, find_subject(checkpoint(), print), 12) != place


def cut(content: bytes) -> bytes:
    return content[:100]


def scribble_over_the_footer(content: bytes) -> bytes:
    return content[:-40] + b"\x7f" * 16 + content[-24:]


@pytest.mark.parametrize("damage", [cut, scribble_over_the_footer, lambda _: b""])
def test_a_damaged_arrow_file_is_an_error_that_names_it_and_what_to_delete(
    damage: Callable[[bytes], bytes], glue: Path, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    place = save_encoded(tmp_path, read_task(TASKS["rte"], glue), find_subject(checkpoint(), print), 13)
    (place / "train.arrow").write_bytes(damage((place / "train.arrow").read_bytes()))
    with pytest.raises(TrainError, match=r"train\.arrow is damaged") as caught:
        load_encoded(place, TASKS["rte"])
    assert caught.value.__notes__ == [f"delete {place}: it is made again"]
