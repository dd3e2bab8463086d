"""Of which pre-training a checkpoint is: its seed, and hashes of what else decided it.

Checkpoints that differ in their pre-training seed alone are one model: a claim about an operator is one about several
of these, not about the luckiest.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable.settings import flatten

ENVIRONMENT = "environment.json"
SEED = "training.seed"
# What may differ between runs that are the same but for chance, rounding and what is kept on disk.
FREE = (SEED, "runtime.", "checkpoint.", "evaluation.every")
# What a study of attention operators varies; what else differs keeps two models from being compared.
STUDIED = (
    "model.attention_operator",
    "model.pairwise_init",
    "model.attention_logit_gain",
    "optimizer.decay_pairwise",
)


def pretraining_of(run: Path) -> dict[str, Any] | None:
    """That of a run folder, as its environment.json identifies the run; None if it does not."""
    try:
        return described(json.loads((run / ENVIRONMENT).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def described(environment: Any) -> dict[str, Any] | None:
    """`seed`; `model`, equal for runs that differ in it alone; `rest`, equal for those that a study compares.

    None if an environment.json identifies no run.
    """
    try:
        identity = environment["identity"]
        recipe = flatten(identity["recipe"])
        seed = int(recipe[SEED])
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    fixed = {key: value for key, value in recipe.items() if not key.startswith(FREE)}
    beside = {key: value for key, value in identity.items() if key != "recipe"}
    rest = {key: value for key, value in fixed.items() if key not in STUDIED}
    return {
        "seed": seed,
        "model": _sha256({**beside, **fixed}),
        "rest": _sha256({**beside, **rest}),
    }


def _sha256(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
