"""Starting RTE, MRPC and STS-B from the model that the same seed fine-tuned on MNLI.

So do Liu et al. (2019, RoBERTa, arXiv 1907.11692, section 5.1) for these three; the protocol's default is not to.
Encoder and pooler are MNLI's, the classifier is new. The models are kept:

    OUT/models/<12 hex>/mnli-<seed>/    may be deleted; made again where a cell needs one
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from durable.errors import with_hint
from durable.files import whole_folder
from train.checkpoint import WEIGHTS
from train.errors import TrainError
from train.glue.cells import Cell
from train.glue.checkpoint import Subject
from train.glue.loading import load_config, silent_transformers
from train.glue.protocol import Protocol
from train.glue.tasks import TASKS, Task

SOURCE = TASKS["mnli"]
STARTED = ("rte", "mrpc", "stsb")


def with_source(tasks: Sequence[Task], protocol: Protocol) -> list[Task]:
    """The tasks, and MNLI where one of them starts from it."""
    needed = protocol.mnli_start and any(task.name in STARTED for task in tasks) and SOURCE not in tasks
    return [*([SOURCE] if needed else []), *tasks]


def started_from(cell: Cell, protocol: Protocol) -> Cell | None:
    """The MNLI cell whose model this one starts from, if it starts from one."""
    return replace(cell, task=SOURCE) if protocol.mnli_start and cell.task.name in STARTED else None


def model_folder(out: Path, cell: Cell) -> Path:
    """Where the fine-tuned model of a cell is kept."""
    return out / "models" / cell.subject.short / f"{cell.task.name}-{cell.seed}"


def save_model(folder: Path, model: Any) -> None:
    """Keep a model, whole or not at all; one that is there already is the same."""
    if not folder.is_dir():
        with whole_folder(folder, name="model") as partial, silent_transformers():
            model.save_pretrained(partial)


def check_start(source: Subject) -> None:
    """Raises TrainError, with what to delete, if the kept model that a cell starts from cannot be read."""
    try:
        load_config(source)
        with safe_open(source.folder / WEIGHTS, "pt"):
            pass
    except (TrainError, OSError, SafetensorError) as error:
        refusal = TrainError(f"{source.folder} is damaged: {str(error).splitlines()[0]}")
        raise with_hint(refusal, f"delete {source.folder}: it is made again") from None


def missing_cells(cells: Sequence[Cell], unfinished: Sequence[Cell], out: Path, protocol: Protocol) -> list[Cell]:
    """The unfinished cells, and finished MNLI cells whose model one of them needs and nobody kept."""
    sources = [started_from(cell, protocol) for cell in unfinished]
    again = {
        source for source in sources if source and source not in unfinished and not model_folder(out, source).is_dir()
    }
    return [cell for cell in cells if cell in unfinished or cell in again]
