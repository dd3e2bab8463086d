"""Parameters and operations of every operator under every norm placement, against counts by hand.

h hidden size, f feed-forward size, n heads of size d, v vocabulary, m positions, t token types, l tokens.
"""

from typing import Any

import pytest

from symbert import OPERATORS, count_flops, count_parameters

PLACEMENTS = ["post", "pre", "sub"]


def projection(width: int, out: int) -> int:
    return width * out + out


def attention_parameters(operator: str, h: int, n: int) -> int:
    d, one = h // n, projection(h, h)
    return {
        "original": 3 * one,
        "symmetric": 2 * one,
        "pairwise": 2 * one + n * d * d,
        "shared": one + 3 * h,
        "additive": 4 * one + 2 * projection(h, n),
    }[operator]


def attention_operations(operator: str, h: int, n: int, tokens: int) -> int:
    d, one, pairs = h // n, 2 * tokens * h * h, 4 * tokens * tokens * h
    return {
        "original": 3 * one + pairs,
        "symmetric": 2 * one + pairs,
        "pairwise": 2 * one + 2 * tokens * h * d + pairs,
        "shared": one + pairs,
        "additive": 4 * one + 2 * (2 * tokens * h * n + 2 * tokens * h),
    }[operator]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_parameters_are_those_counted_by_hand(config: Any, operator: str, placement: str) -> None:
    model = config(operator, norm_placement=placement)
    h, f, n, v, m, t = 21, 34, 3, 53, 19, 2
    layer = attention_parameters(operator, h, n) + projection(h, h) + projection(h, f) + projection(f, h)
    norms = {"post": 4 * h, "pre": 4 * h, "sub": 4 * h + 2 * h + 2 * f}[placement]
    embeddings = (v + m + t) * h + 2 * h
    head = projection(h, h) + 2 * h + v  # the decoder's weight is that of the embeddings
    final = 2 * h if placement == "pre" else 0
    assert count_parameters(model) == embeddings + 2 * (layer + norms) + final + head


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_operations_are_those_counted_by_hand_under_every_norm_placement(
    config: Any, operator: str, placement: str
) -> None:
    h, f, n, v, tokens = 21, 34, 3, 53, 11
    rest = 2 * tokens * h * h + 4 * tokens * h * f
    head = 2 * tokens * h * (h + v)
    by_hand = 2 * (attention_operations(operator, h, n, tokens) + rest) + head
    assert count_flops(config(operator, norm_placement=placement), tokens) == by_hand
