"""The numbers of docs/concepts/attention.md are those that the code gives."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from symbert import HYBRID_MODELS, OPERATORS, SymbertConfig, count_flops, count_parameters

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "concepts" / "attention.md"


def row(operator: str) -> list[str]:
    (line,) = re.findall(rf"^\| `{operator}` \|(.+)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_table_holds_the_counts_and_costs_of_every_operator(operator: str) -> None:
    base, small = (SymbertConfig.of_size(size, attention_operator=operator) for size in ("base", "small"))
    with torch.device("meta"):
        block = sum(parameter.numel() for parameter in OPERATORS[operator](base).parameters())
    costs = [f"{count_flops(config, 512, 77) / 1e9:.1f}" for config in (small, base)]
    counts = [f"{number:,}" for number in (block, count_parameters(small), count_parameters(base))]
    assert row(operator) == [*counts, *costs]
    assert f"\n## `{operator}`\n" in PAGE.read_text("utf-8")


@pytest.mark.parametrize("name", HYBRID_MODELS)
def test_the_page_names_the_counts_of_hybridbert(name: str) -> None:
    count = f"{count_parameters(SymbertConfig(**HYBRID_MODELS[name])):,}"
    assert re.search(rf"`{name}`\s+{count}", PAGE.read_text("utf-8"))


@pytest.mark.slow
def test_the_picture_can_be_drawn_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    script = PAGE.with_name("draw_attention.py")
    copy = tmp_path / script.name
    copy.write_bytes(script.read_bytes())
    subprocess.run([sys.executable, copy], check=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert (tmp_path / "attention.svg").read_text("utf-8").count("<image") >= len(OPERATORS)
