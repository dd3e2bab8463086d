"""environment.json: what a run's recipe does not say but its result may depend on."""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from durable import __version__
from durable.checked import Shape, checked, read_json
from train.corpus import Corpus
from train.device import is_compiled
from train.errors import TrainError
from train.recipe import Recipe

ENVIRONMENT = "environment.json"
FORMAT_VERSION = 1
LIBRARIES = ("torch", "transformers", "safetensors", "numpy", "pyarrow")

ASSUMPTIONS: Mapping[str, str] = {
    "pairwise_init": "Courtois et al. (2024) do not give S's first values; `normal` is N(0, 1) as in their code, "
    "which makes the first scores larger than the original operator's by the root of the head size",
    "weight_decay": "the paper gives 0.01 alone; biases and LayerNorm do not decay, S does unless "
    "optimizer.decay_pairwise is false, the diagonals of the shared operator do not",
    "shared_diagonals": "Kowsher et al. (2024) do not give their first values; they start at 1",
    "learning_rate": "linear as transformers has it: the first step's rate is 0, the last step's is above 0",
    "precision": "the paper trains in fp16 autocast; training.precision `auto` is bf16, which needs no loss scaling, "
    "where the device computes it natively, else fp32",
    "special_tokens": "never masked are all special tokens of the tokenizer, [UNK] among them, as in transformers",
    "random_tokens": "a replaced token is drawn evenly from the whole vocabulary, special tokens included",
    "evaluation_masks": "fixed by evaluation.mask_seed alone; the paper does not say whether its own change",
    "sample_order": "a permutation of each epoch's samples by a hash; a batch may reach into the next epoch",
    "loss": "mean over all masked tokens of a step, over its micro-batches and ranks together",
    "compute_budget": "schedule.max_minutes counts training, evaluating and saving on the first rank's clock, in all "
    "invocations, without what a kill threw away; the learning rate does not know of it",
    "document_borders": "attention crosses them within a packed row, and positions do not start anew",
    "dropout": "seeded by (seed, step, micro-batch, rank): it alone depends on how a step is split. "
    "On a CPU its probability is rounded to 15 bits: 0.1 becomes 3,277 / 32,768",
}
"""What the papers leave open, and what is done here."""

REPEATS = (
    "bit for bit: on the same kind of device, with as many threads and ranks, and the same micro-batch and versions"
)
REPEATS_IN_DATA = (
    "to rounding alone, with the same micro-batch: samples, masks and first weights are the same, but kernels add in "
    "the order in which their threads end, and the fastest is chosen by timing; runtime.deterministic is false"
)
"""How the same command, or a resumed run, comes to the same numbers."""


class _Runtime(Shape):
    micro_batch_size: int | None = Field(None, gt=0, lt=1 << 63)


class _Invocation(Shape):
    device: str = ""
    runtime: _Runtime = _Runtime()


class _Environment(Shape):
    """What a run reads of it again."""

    identity: dict[str, Any]
    invocations: list[_Invocation]


def read_environment(path: Path) -> dict[str, Any]:
    """What earlier invocations wrote. Raises TrainError, naming the field, if it is not what they wrote."""
    document: dict[str, Any] = read_json(path, TrainError)
    checked(_Environment, document, path, TrainError)
    return document


def recorded_micro_batch(run: Path, device: torch.device) -> int:
    """Of the run's last invocation, if that was on a device of this type; else 0."""
    path = run / ENVIRONMENT
    invocations = read_environment(path)["invocations"] if path.exists() else []
    if not invocations or not invocations[-1].get("device", "").startswith(device.type):
        return 0
    return invocations[-1].get("runtime", {}).get("micro_batch_size") or 0


def assumptions(recipe: Recipe) -> dict[str, str]:
    """ASSUMPTIONS, and what the run's own recipe leaves out."""
    clipped = recipe.optimizer.max_gradient_norm > 0
    return dict(ASSUMPTIONS) if clipped else {**ASSUMPTIONS, "clipping": "none: optimizer.max_gradient_norm is 0"}


def identity(recipe: Recipe, corpus: Corpus, init_from: str | None = None) -> dict[str, Any]:
    """What must be equal for a run to be continued; `init_from` is the hash of the weights that it started from."""
    start = {} if init_from is None else {"init_from_sha256": init_from}
    return {
        **start,
        "format_version": FORMAT_VERSION,
        "corpus_hash": corpus.corpus_hash,
        "tokenizer_sha256": corpus.tokenizer_hash,
        "recipe": recipe.identity(),
    }


def repeats(recipe: Recipe, device: torch.device) -> str:
    """What is promised of a run's repetition: no more than its kernels hold."""
    ordered = device.type == "cpu" and not is_compiled(recipe, device)
    return REPEATS if ordered or recipe.runtime.deterministic else REPEATS_IN_DATA


def invocation(recipe: Recipe, device: torch.device, step: int, ranks: int) -> dict[str, Any]:
    """One entry of environment.json's list: where the run was started or resumed, and with what."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "from_step": step,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": f"{device} ({name})",
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"symbert": __version__} | {library: version(library) for library in LIBRARIES},
        "runtime": recipe.runtime.model_dump(mode="json"),
        "repeats": repeats(recipe, device),
    }
