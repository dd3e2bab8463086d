"""One rank of a few, as a program: what is left of DistributedDataParallel when its process group is destroyed."""

import gc
import os
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from durable.progress import unheard
from symbert import SymbertError
from tests.train.tiny import tiny_recipe
from train.corpus import open_corpus
from train.data import Masking, TrainingOrder
from train.errors import TrainError
from train.loop import Trainer, TrainingBatches
from train.pretrain import first_model, pretrain
from train.ranks import joined

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


def join_and_leave(corpus: Path, times: int) -> None:
    """Form a group, wrap a model, take a step, let go and leave; at a port of its own each time."""
    recipe, opened = tiny_recipe("pairwise"), open_corpus(corpus)
    masking = Masking(**recipe.masking.model_dump(), vocabulary=opened.vocabulary)
    batches = TrainingBatches(opened.train, TrainingOrder(len(opened.train), 1), masking, recipe.training.batch_size)
    first = int(os.environ["MASTER_PORT"])
    for number in range(times):
        os.environ["MASTER_PORT"] = str(first + number)
        with joined(CPU) as ranks:
            trainer = Trainer(first_model(recipe), recipe, CPU, ranks)
            trainer.step(1, batches(1))
            trainer.release()
        print("left", number, flush=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "loop":
        join_and_leave(Path(rest[0]), int(rest[1]))
    elif what == "fail":
        fail_within_the_wrapper()
    else:
        watch_a_run(Path(rest[0]), Path(rest[1]), **dict(text.split("=") for text in rest[2:]))
