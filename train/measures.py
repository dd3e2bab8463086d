"""Numbers about a model's attention that are logged beside its evaluations."""

import math
from typing import Any

import numpy as np

from symbert.analysis import attention_facts, weight_facts
from train.corpus import Split

MEANS = ("entropy", "asymmetry")


def attention_measures(model: Any, split: Split, samples: int) -> dict[str, list[float | None]]:
    """For every layer `symmetry`, `entropy` and `asymmetry`; None where a layer's attention has no such number.

    The symmetry score of W_q^T W_k (Saponati et al., 2025) needs the weights alone. Entropy in nats of a query's
    attention, and ||A - A^T|| / ||A|| of the attention map, are means over the heads and the first `samples`
    evaluation samples, unmasked.
    """
    model.eval()
    rows = split.rows(np.arange(min(samples, len(split)), dtype=np.uint64)).tolist()
    found: dict[str, list[float | None]] = {
        "symmetry": [_number(layer["symmetry"]) for layer in weight_facts(model.symbert)]
    }
    for name in MEANS:
        found[name] = []
    for facts in attention_facts(model.symbert, rows):
        for name in MEANS:
            found[name].append(_number(float(np.mean(facts[name])) if facts[name] else None))
    return found


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
