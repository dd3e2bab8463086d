"""A cell, or the seeds of one task together, on the way to a worker, and what the worker does with it."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from durable.tasks import Tell, Work
from train.errors import TrainError
from train.glue.cells import NOISY, TEST, Cell
from train.glue.checkpoint import Subject
from train.glue.encode import EncodedTask, load_encoded, read_encoded, save_encoded
from train.glue.finetune import Candidate, Finetuned, Step, finetune, steps_of
from train.glue.loading import load_config, usable_length
from train.glue.lockstep import finetune_together
from train.glue.noise import noisy
from train.glue.protocol import Protocol
from train.glue.queue import Job
from train.glue.read import TaskData
from train.glue.stacks import Results, Stack, board_key
from train.glue.start import SOURCE, check_start, model_folder, save_model, started_from
from train.glue.tasks import TASKS


@dataclass(frozen=True)
class CellOrder:
    """A cell as it is sent to a worker."""

    subject: Subject
    seed: int
    extra: Mapping[str, Path]
    """Arrow files by the name that their predictions get."""
    keep: Path | None
    """Folder for the fine-tuned model, where others start from it."""
    is_started: bool = False
    """Whether the subject's folder is a model kept here, which another cell left behind."""

    def candidate(self) -> Candidate:
        """What it reads, in memory. Raises TrainError, with what to delete, if a file is damaged that was made here."""
        if self.is_started:
            check_start(self.subject)
        extra = {name: read_encoded(path) for name, path in self.extra.items()}
        keep = None if self.keep is None else functools.partial(save_model, self.keep)
        return Candidate(self.subject, self.seed, extra, keep)


@dataclass(frozen=True)
class StackOrder:
    """Cells of one checkpoint and task that are sent together."""

    place: int
    task: str
    encoded: Path
    cells: tuple[CellOrder, ...]

    @property
    def paths(self) -> list[Path]:
        return [*(cell.subject.folder for cell in self.cells), self.encoded]


def jobs_of(
    stacks: Sequence[Stack],
    out: Path,
    protocol: Protocol,
    rows: tuple[Mapping[str, TaskData], Mapping[str, TaskData]],
    cost: Callable[[Cell], float],
) -> Iterator[Job[Stack]]:
    """The stacks as jobs of a queue; `rows` are the data and the test sets by task."""
    data, tests = rows
    for stack in stacks:
        first, *others = stack.cells
        name = first.task.name
        source = started_from(first, protocol)
        yield Job(
            cell=stack,
            name=stack.name,
            key=board_key(first),
            steps=len(stack.cells) * steps_of(len(data[name].train), protocol.of_task(first.task)),
            cost=len(stack.cells) * cost(first),
            order=functools.partial(order_of, out, protocol, stack, data[name], tests.get(name)),
            after=None if source is None else model_folder(out, source),
            beside=[board_key(cell) for cell in others],
        )


def order_of(
    out: Path, protocol: Protocol, stack: Stack, data: TaskData, test: TaskData | None, place: int
) -> StackOrder:
    """The order for a worker; tokenizes what is not tokenized yet."""
    first = stack.cells[0]
    protocol, folder = protocol.of_task(first.task), out / "encoded"
    length = usable_length(load_config(first.subject), protocol.max_length)
    cells = tuple(_order_of(out, protocol, cell, (data, test), length) for cell in stack.cells)
    return StackOrder(place, first.task.name, save_encoded(folder, data, first.subject, length), cells)


def _order_of(
    out: Path, protocol: Protocol, cell: Cell, rows: tuple[TaskData, TaskData | None], length: int
) -> CellOrder:
    (data, test), folder = rows, out / "encoded"
    extra: dict[str, Path] = {}
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
        subject=cell.subject if source is None else replace(cell.subject, folder=model_folder(out, source)),
        seed=cell.seed,
        extra=extra,
        keep=model_folder(out, cell) if keep else None,
        is_started=source is not None,
    )


def start(setting: tuple[Protocol, str]) -> Work[StackOrder, Results]:
    """What a worker does with every order it is sent: fine-tune, and tell after each step."""
    protocol, device = setting[0], torch.device(setting[1])

    def work(order: StackOrder, tell: Tell) -> Results:
        task = load_encoded(order.encoded, TASKS[order.task])
        settings = protocol.of_task(task.task)
        candidates = [cell.candidate() for cell in order.cells]
        steps, seeds = steps_of(len(task.train), settings), len(candidates)

        def on_step(done: int) -> None:
            tell({"done": done, "total": seeds * steps})

        if seeds == 1:
            return [_alone(candidates[0], task, settings, device, on_step)]
        try:
            return finetune_together(candidates, task, settings, device, lambda step: on_step(seeds * step))
        except (torch.OutOfMemoryError, MemoryError):
            pass  # Within this block the error would hold on to the memory.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return _one_after_another(candidates, task, settings, device, on_step)

    return work


def _alone(
    candidate: Candidate, task: EncodedTask, protocol: Protocol, device: torch.device, on_step: Step
) -> Finetuned:
    subject, seed = candidate.subject, candidate.seed
    return finetune(subject, task, protocol, seed, device, on_step, candidate.extra, candidate.keep)


def _one_after_another(
    candidates: Sequence[Candidate], task: EncodedTask, protocol: Protocol, device: torch.device, on_step: Step
) -> Results:
    """What `finetune` returns for each, or the TrainError that it raises."""
    results: list[Finetuned | TrainError] = []
    steps = steps_of(len(task.train), protocol)
    for place, candidate in enumerate(candidates):

        def of_all(step: int, before: int = place * steps) -> None:
            on_step(before + step)

        try:
            results.append(_alone(candidate, task, protocol, device, of_all))
        except TrainError as error:
            results.append(error)
    return results
