"""What a run will cost and on what it will train, known before the first step."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symbert import count_flops, count_parameters
from train.corpus import Corpus
from train.environment import repeats
from train.memory import give_back_memory, memory_bytes, micro_batch_size
from train.predict import PRECISIONS
from train.recipe import Recipe, symbert_config

MATRIX_SIZES: Mapping[str, int] = {"cpu": 1024, "cuda": 8192}
"""Sides of the square matrices whose product is timed: large enough for the full rate, small enough for a moment."""

SLOW_LAYOUT = 1.5
"""A layout that takes so many times as long as the fastest is timed once: on a CPU it may take seconds."""

Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: tuple[Product, ...] = (
    lambda left, right: left @ right.T,
    lambda left, right: left @ right,
    lambda left, right: left.T @ right,
)
"""A linear layer's forward pass, and the gradients of its input and of its weight."""


@dataclass(frozen=True)
class Timing:
    """How the rate of a kind of device is measured."""

    warm_up: float
    """Seconds of products before any is timed."""
    products: int
    """Timed, of each layout."""
    seconds: Callable[[list[float]], float]
    """What all of them say about one."""


TIMINGS: Mapping[str, Timing] = {"cpu": Timing(0.0, 5, min), "cuda": Timing(0.3, 9, median)}
"""A GPU at rest has yet to raise its clock, and under load it lowers it again: the median is what it keeps up. A CPU is
shared, and what other programs do slows some of the products: on two busy cores the median was a fifth below the
fastest, which is what the CPU does."""


@dataclass(frozen=True)
class Preflight:
    """A run in numbers."""

    parameters: int
    flops_per_token: int
    """Of forward and backward pass, with sparse prediction, matrix products alone; the base of MFU."""
    matrix_flops_per_second: float
    """The device's rate on a large matrix product in the run's precision, measured just now."""
    memory_bytes: int
    """About: weights, gradients and moments, and the activations of one micro-batch."""
    micro_batch_size: int
    steps: int
    steps_done: int
    """By the run that would be resumed."""
    max_minutes: float | None
    """The compute budget, with which the run may end sooner."""
    tokens: int
    passes: float
    """How often the whole training split is seen."""
    training_samples: int
    evaluation_samples: int
    unigram_entropy: float
    """Of the evaluation set, in nats: the loss of always guessing by frequency, on which the plateau sits."""
    repeats: str
    """How far the same command comes to the same numbers."""

    @property
    def least_seconds(self) -> float:
        """How long the steps left would take at the full matrix rate; a good run reaches about half of it."""
        left = self.tokens * (self.steps - self.steps_done) / self.steps
        return left * self.flops_per_token / self.matrix_flops_per_second

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "least_seconds": self.least_seconds}


def preflight(corpus: Corpus, recipe: Recipe, device: torch.device, steps_done: int = 0) -> Preflight:
    """Count, measure and estimate; trains nothing and writes nothing. The recipe's precision must be resolved."""
    size = micro_batch_size(recipe, device)
    tokens_per_step = recipe.training.batch_size * recipe.data.sequence_length
    return Preflight(
        parameters=count_parameters(symbert_config(recipe.model)),
        flops_per_token=flops_per_token(recipe),
        matrix_flops_per_second=matrix_rate(device, PRECISIONS[recipe.training.precision]),
        memory_bytes=memory_bytes(recipe, device.type, size),
        micro_batch_size=size,
        steps=recipe.schedule.max_steps,
        steps_done=steps_done,
        max_minutes=recipe.schedule.max_minutes,
        tokens=recipe.schedule.max_steps * tokens_per_step,
        passes=recipe.schedule.max_steps * recipe.training.batch_size / len(corpus.train),
        training_samples=len(corpus.train),
        evaluation_samples=min(len(corpus.validation), recipe.evaluation.samples),
        unigram_entropy=unigram_entropy(corpus, recipe.evaluation.samples),
        repeats=repeats(recipe, device),
    )


def flops_per_token(recipe: Recipe) -> int:
    """Floating-point operations a token, forward and backward (twice the forward), as sparse prediction does them."""
    length = recipe.data.sequence_length
    predictions = max(1, round(recipe.masking.probability * length))
    return round(3 * count_flops(symbert_config(recipe.model), length, predictions) / length)


def unigram_entropy(corpus: Corpus, samples: int) -> float:
    """Entropy in nats of the tokens of the first evaluation samples, without the special tokens."""
    counts = np.zeros(corpus.vocabulary.size)
    numbers = np.arange(min(len(corpus.validation), samples), dtype=np.uint64)
    for start in range(0, len(numbers), 1024):
        tokens = corpus.validation.rows(numbers[start : start + 1024])
        counts += np.bincount(tokens.reshape(-1), minlength=len(counts))
    counts[list(corpus.vocabulary.special_ids)] = 0
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of large square matrix products, in the fastest of the layouts of a linear layer.

    One layout alone would not do: a CPU without fp16 of its own took 18 times as long for left @ right as for
    left @ right^T, of which a forward pass consists, so that a run seemed to use more than there is. It
    is measured once in a process for each number of CPU threads.
    """
    rate = _measured_rate(device, dtype, torch.get_num_threads())
    if device.type == "cuda":
        give_back_memory()  # for the run's own use, or for that of the processes that this one starts
    return rate


@functools.cache
def _measured_rate(device: torch.device, dtype: torch.dtype, _threads: int) -> float:
    side = MATRIX_SIZES[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timing, started = TIMINGS[device.type], time.perf_counter()
    while time.perf_counter() - started < timing.warm_up:
        for product in PRODUCTS:
            _seconds(product, left, right)
    first = {product: _seconds(product, left, right) for product in PRODUCTS}
    fast = [product for product, seconds in first.items() if seconds < SLOW_LAYOUT * min(first.values())]
    each = [
        timing.seconds([first[product], *(_seconds(product, left, right) for _ in range(timing.products - 1))])
        for product in fast
    ]
    return 2 * side**3 / min(each)


def _seconds(product: Product, left: Tensor, right: Tensor) -> float:
    _wait(left.device)
    started = time.perf_counter()
    product(left, right)
    _wait(left.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
