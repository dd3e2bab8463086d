"""One rank of a few, as a program: what they wait for, who has the memory, and what is left at the end."""

import gc
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

from durable.progress import unheard
from symbert import SymbertError
from tests.train.tiny import tiny_recipe
from train.corpus import open_corpus
from train.data import Masking, TrainingOrder
from train.errors import TrainError
from train.loop import Trainer, TrainingBatches
from train.predict import MaskedPrediction
from train.pretrain import first_model, pretrain
from train.ranks import Ranks, joined

CPU = torch.device("cpu")


def watch_the_end() -> None:
    """From here on print how many wrappers there are whenever a process group is destroyed."""
    destroy = distributed.destroy_process_group

    def watched() -> None:
        print("wrappers", sum(type(one) is DistributedDataParallel for one in gc.get_objects()), flush=True)
        destroy()

    distributed.destroy_process_group = watched


def fail_within_the_wrapper() -> None:
    """Leave the group by an exception that has one in the wrapper's own forward pass behind it."""
    watch_the_end()
    recipe = tiny_recipe("pairwise")
    try:
        with joined(CPU) as ranks:
            trainer = Trainer(first_model(recipe), recipe, CPU, ranks)
            try:
                trainer.predictor.forward(None, None, None)
            except SymbertError:
                trainer.release()
                raise TrainError("refused") from None
    except TrainError as error:
        print(error)


def watch_a_run(corpus: Path, out: Path, **changes: object) -> None:
    """Pre-train, and watch the end."""
    watch_the_end()
    try:
        pretrain(corpus, out, tiny_recipe("pairwise", **changes), device="cpu", notice=unheard)
    except TrainError as error:
        print(error.args[0].partition(":")[0])


def train_with_scarce_memory(corpus: Path, out: Path) -> None:
    """Pre-train where the second rank has the memory for 3 samples; print what is said, and the last micro-batch."""
    sizes = []

    def refuse(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, MaskedPrediction) and module.training:
            sizes.append(len(arguments[0]))
            if os.environ["RANK"] == "1" and sizes[-1] > 3:
                raise torch.OutOfMemoryError

    register_module_forward_pre_hook(refuse)
    pretrain(
        corpus, out, tiny_recipe(schedule__max_steps=4, model__max_position_embeddings=32), device="cpu", notice=print
    )
    print(sizes[-1])


def wait_for_the_first(corpus: Path, then: str) -> None:
    """The first rank works alone for longer than any exchange may take; `then` is what becomes of it, or of the other.

    `train`: a step, and again such a wait; `refuse`: it has found damage; `first` or `other`: that rank is killed.
    """
    try:
        with joined(CPU, timedelta(seconds=3)) as ranks:
            with ranks.together(CPU):
                if then == "other" and not ranks.first:
                    os.kill(os.getpid(), signal.SIGKILL)
                if ranks.first:
                    time.sleep(1 if then == "first" else 6)
                    if then == "first":
                        os.kill(os.getpid(), signal.SIGKILL)
                    if then == "refuse":
                        raise TrainError("damaged")
            take_a_step(corpus, ranks)
            time.sleep(6 * ranks.first)
            ranks.wait()
            print("trained")
    except TrainError as error:
        print(error)


def take_a_step(corpus: Path, ranks: Ranks) -> None:
    """Wrap a model, take a step and let go."""
    trainer, batches = parts(corpus, ranks)
    trainer.step(1, batches(1))
    trainer.release()


def parts(corpus: Path, ranks: Ranks) -> tuple[Trainer, TrainingBatches]:
    recipe, opened = tiny_recipe("pairwise"), open_corpus(corpus)
    masking = Masking(**recipe.masking.model_dump(), vocabulary=opened.vocabulary)
    batches = TrainingBatches(opened.train, TrainingOrder(len(opened.train), 1), masking, recipe.training.batch_size)
    return Trainer(first_model(recipe), recipe, CPU, ranks), batches


def take_the_first_step_again(corpus: Path) -> None:
    """Print how many gradients a step has, and how many of them have other bits in the same step after it."""
    with joined(CPU) as ranks:
        trainer, batches = parts(corpus, ranks)
        batch = batches(1)
        trainer.settle_exchange(batch)
        found = []
        for _ in range(2):  # the rate of step 1 is 0: the weights stay
            trainer.step(1, batch)
            found.append([weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None])
        print(len(found[0]), sum(not one.equal(other) for one, other in zip(*found, strict=True)))
        trainer.release()


def join_and_leave(corpus: Path, times: int) -> None:
    """Form a group, take a step and leave; at a port of its own each time."""
    first = int(os.environ["MASTER_PORT"])
    for number in range(times):
        os.environ["MASTER_PORT"] = str(first + number)
        with joined(CPU) as ranks:
            take_a_step(corpus, ranks)
        print("left", number, flush=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "loop":
        join_and_leave(Path(rest[0]), int(rest[1]))
    elif what == "wait":
        wait_for_the_first(Path(rest[0]), rest[1])
    elif what == "scarce":
        train_with_scarce_memory(Path(rest[0]), Path(rest[1]))
    elif what == "again":
        take_the_first_step_again(Path(rest[0]))
    elif what == "fail":
        fail_within_the_wrapper()
    else:
        watch_a_run(Path(rest[0]), Path(rest[1]), **dict(text.split("=") for text in rest[2:]))
