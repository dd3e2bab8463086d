"""A cell on its way to a worker, and what the worker does with it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from durable.tasks import Tell, Work
from train.glue.cells import NOISY, TEST, Cell
from train.glue.checkpoint import Subject, load_config, usable_length
from train.glue.encode import load_encoded, read_encoded, save_encoded
from train.glue.finetune import Finetuned, finetune, steps_of
from train.glue.noise import noisy
from train.glue.protocol import Protocol
from train.glue.read import TaskData
from train.glue.start import SOURCE, model_folder, save_model, started_from
from train.glue.tasks import TASKS


@dataclass(frozen=True)
class CellOrder:
    """A cell as it is sent to a worker."""

    place: int
    subject: Subject
    task: str
    seed: int
    encoded: Path
    extra: Mapping[str, Path]
    """Arrow files by the name that their predictions get."""
    keep: Path | None
    """Folder for the fine-tuned model, where others start from it."""

    @property
    def paths(self) -> list[Path]:
        return [self.subject.folder, self.encoded]


def order_of(out: Path, protocol: Protocol, cell: Cell, data: TaskData, test: TaskData | None, place: int) -> CellOrder:
    """The order for a worker; tokenizes what is not tokenized yet."""
    protocol, folder = protocol.of_task(cell.task), out / "encoded"
    length = usable_length(load_config(cell.subject), protocol.max_length)
    extra: dict[str, Path] = {}
    encoded = save_encoded(folder, data, cell.subject, length)
    if protocol.noise != "none":
        damaged = noisy(data, protocol.noise, protocol.noise_rate, cell.seed)
        place_of = save_encoded(folder, damaged, cell.subject, length)
        extra |= {f"{NOISY}{name}": place_of / f"{name}.arrow" for name in damaged.splits}
    if test is not None:
        place_of = save_encoded(folder, test, cell.subject, length)
        extra |= {f"{TEST}{name}": place_of / f"{name}.arrow" for name in cell.task.test}
    source = started_from(cell, protocol)
    keep = protocol.mnli_start and cell.task is SOURCE
    return CellOrder(
        place=place,
        subject=cell.subject if source is None else replace(cell.subject, folder=model_folder(out, source)),
        task=cell.task.name,
        seed=cell.seed,
        encoded=encoded,
        extra=extra,
        keep=model_folder(out, cell) if keep else None,
    )


def start(setting: tuple[Protocol, str]) -> Work[CellOrder, Finetuned]:
    """What a worker does with every cell it is sent: fine-tune, and tell after each step."""
    protocol, device = setting

    def work(order: CellOrder, tell: Tell) -> Finetuned:
        task = load_encoded(order.encoded, TASKS[order.task])
        extra = {name: read_encoded(path) for name, path in order.extra.items()}
        keep = None if order.keep is None else functools.partial(save_model, order.keep)
        settings = protocol.of_task(task.task)
        steps = steps_of(len(task.train), settings)

        def on_step(step: int) -> None:
            tell({"done": step, "total": steps})

        return finetune(order.subject, task, settings, order.seed, torch.device(device), on_step, extra, keep)

    return work
