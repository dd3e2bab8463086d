"""Rows of text as token ids, and token ids as padded batches.

Shape suffixes: B examples, L token positions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from durable.errors import with_hint
from durable.files import whole_folder
from train.device import sent
from train.errors import TrainError
from train.glue.checkpoint import Subject
from train.glue.loading import has_token_types, load_tokenizer
from train.glue.read import Labels, Split, TaskData
from train.glue.tasks import Task

Indices = npt.NDArray[np.int64]
ROWS_AT_ONCE = 10_000
PADDING_ID = b"padding_id"


@dataclass(frozen=True)
class Encoded:
    """One split as token ids, end to end: example i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint8] | None
    """Sentence numbers, 0 or 1, beside `ids`; None if the model has none."""
    offsets: Indices
    labels: Labels
    padding_id: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Indices:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class EncodedTask:
    """Training and validation splits of a task, for one tokenizer and length."""

    task: Task
    splits: Mapping[str, Encoded]

    @property
    def train(self) -> Encoded:
        return self.splits["train"]


def encode_task(data: TaskData, subject: Subject, max_length: int) -> EncodedTask:
    """Tokenize every split; at most `max_length` tokens an example, cut from the longer sentence's end."""
    tokenizer, has_types = load_tokenizer(subject), has_token_types(subject)
    return EncodedTask(
        data.task,
        {name: _encode(split, tokenizer, max_length, has_types) for name, split in data.splits.items()},
    )


def save_encoded(folder: Path, data: TaskData, subject: Subject, max_length: int) -> Path:
    """Tokenize a task into Arrow files below `folder`, once per data, tokenizer and length; returns their folder."""
    types = "types" if has_token_types(subject) else "no-types"
    place = folder / f"{data.task.name}-{max_length}-{types}-{data.sha256[:12]}-{subject.tokenizer[:12]}"
    if not place.is_dir():
        with whole_folder(place, first_stays=True, name="encoded") as partial:
            for name, split in encode_task(data, subject, max_length).splits.items():
                _write(partial / f"{name}.arrow", split)
    return place


def load_encoded(place: Path, task: Task) -> EncodedTask:
    """Map the splits that fine-tuning needs into memory. Raises TrainError if a file is damaged."""
    names = ("train", *task.validation_splits)
    return EncodedTask(task, {name: read_encoded(place / f"{name}.arrow") for name in names})


def _write(path: Path, split: Encoded) -> None:
    columns = {"ids": split.ids, "types": split.types}
    lists = {
        name: pa.ListArray.from_arrays(pa.array(split.offsets, pa.int32()), pa.array(values))
        for name, values in columns.items()
        if values is not None
    }
    table = pa.table({**lists, "label": pa.array(split.labels)}, metadata={PADDING_ID: str(split.padding_id)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_encoded(path: Path) -> Encoded:
    """Map one split into memory. Raises TrainError if its file is damaged."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError):
        raise with_hint(TrainError(f"{path} is damaged"), f"delete {path.parent}: it is made again") from None
    # A single chunk is mapped without a copy.
    ids = table["ids"].combine_chunks()
    types = table["types"].combine_chunks().values.to_numpy() if "types" in table.column_names else None
    offsets = ids.offsets.to_numpy().astype(np.int64)
    padding_id = int(table.schema.metadata[PADDING_ID])
    return Encoded(ids.values.to_numpy(), types, offsets, table["label"].to_numpy(), padding_id)


def _encode(split: Split, tokenizer: Any, max_length: int, has_types: bool) -> Encoded:
    ids: list[npt.NDArray[np.int32]] = []
    types: list[npt.NDArray[np.uint8]] = []
    for first in range(0, len(split), ROWS_AT_ONCE):
        rows = [column[first : first + ROWS_AT_ONCE] for column in split.text]
        encoding = tokenizer(*rows, truncation="longest_first", max_length=max_length, return_token_type_ids=has_types)
        ids += [np.array(row, np.int32) for row in encoding["input_ids"]]
        types += [np.array(row, np.uint8) for row in encoding["token_type_ids"]] if has_types else []
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in ids])))
    return Encoded(
        np.concatenate(ids),
        np.concatenate(types) if types else None,
        offsets,
        split.labels,
        tokenizer.pad_token_id,
    )


def with_used_tokens_only(model: Any, task: EncodedTask) -> tuple[EncodedTask, Callable[[], None]]:
    """Cut the model's table of word embeddings down to the tokens of this task.

    Returns the task renumbered, and what puts the other rows back. Those get no gradient and are never looked up, so
    nothing changes but the work: BERT's table is half of BERT-small, and its gradient, norm and moments are as large.
    CoLA uses 5,870 of its 30,522 rows.
    """
    table = model.get_input_embeddings()
    padding_id = task.train.padding_id
    # Ids up to the padding's stay, since models such as RoBERTa count positions from its number.
    used = np.unique(np.concatenate([np.arange(padding_id + 1), *(split.ids for split in task.splits.values())]))
    smaller = nn.Embedding(
        len(used), table.embedding_dim, padding_idx=table.padding_idx, _weight=table.weight.detach()[used].clone()
    )
    model.set_input_embeddings(smaller)

    def put_back() -> None:
        with torch.no_grad():
            table.weight[used] = smaller.weight.to(table.weight.device)
        model.set_input_embeddings(table.to(smaller.weight.device))

    renumbered = {
        name: replace(split, ids=np.searchsorted(used, split.ids).astype(np.int32))
        for name, split in task.splits.items()
    }
    return replace(task, splits=renumbered), put_back


def padded(split: Encoded, rows: Indices, device: torch.device) -> dict[str, Tensor]:
    """The model's inputs for these rows, padded to the longest: tensors of shape (B, L).

    Where all are equally long there is no attention mask, which spares attention the cost of one.
    """
    lengths_B = split.lengths[rows]
    real_BL = np.arange(lengths_B.max()) < lengths_B[:, None]
    positions = np.concatenate([np.arange(split.offsets[row], split.offsets[row + 1]) for row in rows])
    ids_BL = np.full(real_BL.shape, split.padding_id, np.int64)
    ids_BL[real_BL] = split.ids[positions]
    inputs = {"input_ids": ids_BL}
    if split.types is not None:
        types_BL = np.zeros(real_BL.shape, np.int64)
        types_BL[real_BL] = split.types[positions]
        inputs["token_type_ids"] = types_BL
    if not real_BL.all():
        inputs["attention_mask"] = real_BL.astype(np.int64)
    return {name: sent(array, device) for name, array in inputs.items()}


def groups_of_similar_length(lengths: Sequence[int], overhead: int) -> list[Indices]:
    """Divide a batch so that computing its parts one by one costs least.

    A part costs its padded tokens (examples × longest) and `overhead`, the price in tokens of one more pass
    through the model. Returns positions in the batch, shortest first; exact, by dynamic programming over the
    examples in order of length.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = [int(lengths[position]) for position in order]
    best, cut = [0] + [0] * len(ordered), [0] * (len(ordered) + 1)
    for end in range(1, len(ordered) + 1):
        costs = [best[start] + (end - start) * ordered[end - 1] + overhead for start in range(end)]
        cut[end] = int(np.argmin(costs))
        best[end] = costs[cut[end]]
    groups, end = [], len(ordered)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def batches_by_tokens(lengths: Indices, tokens: int) -> list[Indices]:
    """All rows, by length, in batches of at most `tokens` padded tokens (and at least one row)."""
    order = np.argsort(lengths, kind="stable")
    batches: list[Indices] = []
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > tokens:
            batches.append(order[start:end])
            start = end
    return batches
