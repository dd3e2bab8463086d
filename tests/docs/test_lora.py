"""The target modules that the documentation names for LoRA are those that a model has."""

import re
from pathlib import Path

import pytest
from torch import nn

from symbert import OPERATORS, SymbertConfig, SymbertForSequenceClassification

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-a-trained-model.md"
HEADS = {"query_score", "key_score"}
"""Linear layers of `additive` that peft takes for heads, as the page says."""


def documented() -> dict[str, set[str]]:
    section = PAGE.read_text("utf-8").partition("## With LoRA")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    return {operator: set(re.findall(r"`(\w+)`", names)) for operator, names in rows}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_targets_of_lora_are_the_linear_layers_of_the_attention(operator: str) -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1, "intermediate_size": 40}
    model = SymbertForSequenceClassification(SymbertConfig(**sizes, vocab_size=9, attention_operator=operator))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = {name.rpartition(".")[2] for name in linear if ".attention.self." in name}
    assert documented()[operator] == found - HEADS
    assert {"classifier", "symbert.pooler.dense"} <= linear
