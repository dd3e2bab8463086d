"""Degenerate fine-tunings: those that have learned nothing from which a score could follow.

They count in all means, and are named beside them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from train.glue.tasks import Task

ONE_ANSWER = "one answer to everything"
NO_CORRELATION = "a Matthews correlation of 0"
NO_SPREAD = "numbers that hardly differ"
LEAST_SPREAD = 1e-3
"""Standard deviation of a regression's predictions below which they are one and the same number.

The leaderboard's file takes three decimals, so such predictions are one number there, or two neighbours; STS-B's labels
run from 0 to 5 with a standard deviation of about 1.5. A correlation has no scale and would make a score of the rest.
"""


def degeneration(task: Task, record: Mapping[str, Any]) -> str:
    """What is degenerate about the scores and predictions of a cell (or of its noise); empty if nothing is.

    One answer to all of a split, one class or one number; a Matthews' correlation of exactly 0, which is that of
    predictions that say nothing of the label, though they be mixed; for a regression a spread below LEAST_SPREAD,
    or none that is defined.
    """
    for text in record["predictions"].values():
        answers = text if task.one_digit else text.split()
        if len(set(answers)) < 2:
            return ONE_ANSWER
        if task.is_regression and not np.std(np.array(answers, np.float64)) >= LEAST_SPREAD:
            return NO_SPREAD
    return NO_CORRELATION if record["scores"].get("matthews_correlation") == 0.0 else ""
