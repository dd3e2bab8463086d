import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from symbert import OPERATORS
from tests.corpora import write_corpus
from tests.train.tiny import tiny_recipe
from train.corpus import open_corpus
from train.preflight import TIMINGS, _measured_rate, flops_per_token, matrix_rate, preflight, unigram_entropy
from train.recipe import load_recipe

CPU = torch.device("cpu")


def test_flops_are_those_counted_by_hand_for_bert_small() -> None:
    width, wide, length, words, masked = 512, 2048, 512, 30_522, 77
    projections, scores = 3 * 2 * width**2, 4 * length * width
    rest = 2 * width**2 + 4 * width * wide
    head = 2 * width**2 + 2 * width * words
    forward = 4 * (projections + scores) + (3 + masked / length) * rest + masked / length * head
    assert flops_per_token(load_recipe("bert-small-original")) == pytest.approx(3 * forward, rel=1e-6)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_its_numbers(tmp_path: Path, operator: str) -> None:
    found = preflight(open_corpus(write_corpus(tmp_path)), tiny_recipe(operator), CPU)
    assert found.steps == 20
    assert found.tokens == 20 * 8 * 32
    assert found.passes == pytest.approx(20 * 8 / 96)
    assert (found.training_samples, found.evaluation_samples) == (96, 16)
    assert found.memory_bytes > 16 * found.parameters
    assert found.least_seconds == pytest.approx(found.tokens * found.flops_per_token / found.matrix_flops_per_second)


def test_the_unigram_entropy_is_that_of_the_evaluated_samples_without_special_tokens(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path, validation=40))
    tokens = [token for token in corpus.validation.rows(torch.arange(7).numpy()).reshape(-1).tolist() if token > 4]
    shares = [tokens.count(token) / len(tokens) for token in set(tokens)]
    assert unigram_entropy(corpus, 7) == pytest.approx(-sum(share * math.log(share) for share in shares))
    assert unigram_entropy(corpus, 10_000) != unigram_entropy(corpus, 7)


def test_the_matrix_rate_is_measured_once_for_each_number_of_threads() -> None:
    threads = torch.get_num_threads()
    try:
        rates = []
        for count in (1, 2, 1, 2):
            torch.set_num_threads(count)
            rates.append(matrix_rate(CPU, torch.float32))
    finally:
        torch.set_num_threads(threads)
    assert rates[:2] == rates[2:]
    assert rates[0] != rates[1]


class Clock:
    """Seconds that pass in matrix products alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *products: Callable[["Clock"], float]) -> None:
        self.now, self.runs = 0.0, [0] * len(products)
        timed = [functools.partial(self._run, number, product) for number, product in enumerate(products)]
        monkeypatch.setattr("train.preflight.PRODUCTS", tuple(timed))
        monkeypatch.setattr("train.preflight.time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr("train.preflight.MATRIX_SIZES", {"cpu": 2})
        monkeypatch.setattr("train.preflight.TIMINGS", {"cpu": TIMINGS["cuda"]})  # in the GPU's stead

    def _run(self, number: int, product: Callable[["Clock"], float], *_: torch.Tensor) -> None:
        self.runs[number] += 1
        self.now += product(self)

    def seconds(self) -> float:
        """Of the product by which the rate was measured."""
        return 2 * 2**3 / _measured_rate.__wrapped__(CPU, torch.float32, 1)


def test_a_gpu_is_warm_before_a_product_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda clock: 0.05 if clock.now < 0.3 else 0.01)
    assert clock.seconds() == pytest.approx(0.01)


def test_the_rate_of_a_gpu_is_the_median_of_its_fastest_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    lucky = itertools.chain([0.5, 0.5], itertools.repeat(3.0))  # once while it warms up
    clock = Clock(monkeypatch, lambda _: next(lucky), lambda _: 0.7)
    assert clock.seconds() == pytest.approx(0.7)


def test_a_slow_layout_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda _: 2.0, lambda _: 0.1, lambda _: 0.12)
    assert clock.seconds() == pytest.approx(0.1)
    assert clock.runs == [1 + 1, 1 + 9, 1 + 9]  # one round warms up


class Layouts(TorchDispatchMode):
    """Which of a product's two factors are transposed, for every matrix product within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[bool, bool]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.seen.add(tuple(not factor.is_contiguous() for factor in args[-2:]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_products_that_are_timed_are_those_of_a_training_step(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.preflight.MATRIX_SIZES", {"cpu": 32})
    layer, samples = nn.Linear(3, 5, dtype=dtype), torch.randn(7, 3, dtype=dtype, requires_grad=True)
    with Layouts() as trained:
        layer(samples).sigmoid().sum().backward()
    with Layouts() as timed:
        _measured_rate.__wrapped__(CPU, dtype, 1)
    assert timed.seen == trained.seen
    assert len(timed.seen) == 3
