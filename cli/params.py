"""`symbert params`: the number of parameters of every size and operator, Table 2 of Courtois et al. (2024)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import AsJson, print_json
from cli.values import Size, operators

if TYPE_CHECKING:
    from symbert import SymbertConfig

Sizes = Annotated[list[Size] | None, typer.Option("--size", help="Only this size; may be given several times.")]
Operators = Annotated[
    list[str] | None,
    typer.Option(
        "--operator",
        metavar="NAME|NAME,NAME,…",
        help="Only this operator, or a comma list with one per layer; may be given several times.",
    ),
]
Length = Annotated[
    int | None,
    typer.Option(
        "--flops",
        metavar="LENGTH",
        min=1,
        help="Count floating-point operations of a forward pass over LENGTH tokens, 15 % predicted, not parameters.",
    ),
]
MASKED_SHARE = 0.15
COLUMN = 19  # wide enough for the operations of a long text


def params(sizes: Sizes = None, chosen: Operators = None, flops: Length = None, as_json: AsJson = False) -> None:
    """Print the parameters of the masked language model for each size and attention operator, and of HybridBERT.

    Every number is counted on a model built on the meta device; tied parameters count once. HybridBERT's models are
    left out where a size or an operator is asked for.
    """
    from symbert import HYBRID_MODELS, OPERATORS, SIZES, SymbertConfig

    count = counter(flops)
    shown = [operators("--operator", text) for text in chosen or OPERATORS]
    hybrid = {} if sizes or chosen else HYBRID_MODELS
    counts = {
        size: {name: count(SymbertConfig.of_size(size, attention_operator=name)) for name in shown}
        for size in [size.value for size in sizes or ()] or SIZES
    }
    hybrid_counts = {name: count(SymbertConfig(**fields)) for name, fields in hybrid.items()}
    if as_json:
        print_json({**counts, **({"hybrid": hybrid_counts} if hybrid else {})})
    else:
        print(table(counts))
        for name, number in hybrid_counts.items():
            print(f"{name:<9}{number:>{COLUMN},}")


def counter(flops: int | None) -> "Callable[[SymbertConfig], int]":
    """What is counted of a configuration: its parameters, or the operations over that many tokens."""
    from symbert import count_flops, count_parameters

    if flops is None:
        return count_parameters
    length = flops

    def operations(config: "SymbertConfig") -> int:
        fitting = max(length, config.max_position_embeddings)
        config.max_position_embeddings = fitting
        return count_flops(config, length, max(1, round(MASKED_SHARE * length)))

    return operations


def table(counts: dict[str, dict[str, int]]) -> str:
    """Sizes as rows, operators as columns; below each number, the difference to the row's `original` in per cent."""
    operators = list(next(iter(counts.values())))
    widths = [max(len(name), COLUMN - 2) + 2 for name in operators]

    def line(head: str, cells: list[str]) -> str:
        return f"{head:<9}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()

    lines = [line("", operators)]
    for size, row in counts.items():
        lines.append(line(size, [f"{row[name]:,}" for name in operators]))
        if "original" in row:
            original = row["original"]
            shares = ["" if name == "original" else f"{row[name] / original - 1:+.2%}" for name in operators]
            lines.append(line("", shares))
    return "\n".join(lines)
