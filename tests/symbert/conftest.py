from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from symbert import SymbertConfig

ConfigFactory = Callable[..., SymbertConfig]


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.default_generator.manual_seed(0)  # the one of the CPU; torch.manual_seed takes milliseconds for the others
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config() -> ConfigFactory:
    """A configuration whose sizes are co-prime as far as they may be (3 heads of 7), so that no two axes agree."""

    def make(operator: str | list[str] = "original", **others: Any) -> SymbertConfig:
        sizes = {
            "vocab_size": 53, "hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2,
            "intermediate_size": 34, "max_position_embeddings": 19,
        }  # fmt: skip
        return SymbertConfig(**{**sizes, "attention_operator": operator, **others})

    return make
