"""Positions that a model has, but no sample of its pre-training reached; learned ones are still as they were drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symbert.checkpoint import read_config
from train.recipe import Recipe


def trained_positions(recipe: Recipe, init_from: Path | None) -> int:
    """How many positions are trained at the end of a run: those of its samples, and those of what it starts from."""
    length = recipe.data.sequence_length
    if init_from is None:
        return length
    start = read_config(init_from)
    return max(length, start.get("trained_positions") or start.get("max_position_embeddings", length))


def untrained_positions(config: Mapping[str, Any], reached: int | None = None) -> str | None:
    """One line about the untrained positions among the first `reached`, by default all; None if there are none.

    `config` are the fields of a config.json. One that does not say how many were trained is taken to have no others.
    """
    trained, positions = config.get("trained_positions"), config.get("max_position_embeddings", 0)
    last = positions if reached is None else min(reached, positions)
    if not isinstance(trained, int) or last <= trained:
        return None
    return f"pre-training never reached positions {trained + 1} to {last}: its samples had {trained} tokens"
