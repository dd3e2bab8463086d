"""Numbers about a model's attention that are logged beside its evaluations."""

import math
from typing import Any

import numpy as np

from symbert.analysis import MAP_FACTS, attention_facts, symmetry_scores
from train.corpus import Split


def attention_measures(model: Any, split: Split, samples: int) -> dict[str, list[float | None]]:
    """For every layer `symmetry`, `entropy` and `asymmetry`; None where a layer's attention has no such number.

    The symmetry score of W_q^T W_k (Saponati et al., 2025) needs the weights alone. Entropy in nats of a query's
    attention, and ||A - A^T|| / ||A|| of the attention map, are means over the heads and the first `samples`
    evaluation samples, unmasked.
    """
    model.eval()
    rows = split.rows(np.arange(min(samples, len(split)), dtype=np.uint64)).tolist()
    facts = attention_facts(model.symbert, rows)
    return {
        "symmetry": [_number(score) for score in symmetry_scores(model.symbert)],
        **{name: [_number(float(np.mean(of[name])) if of[name] else None) for of in facts] for name in MAP_FACTS},
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
