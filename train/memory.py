"""The micro-batch that a device has the memory for: estimated before anything is allocated, and refused where it fails.

On a CPU it is always the same, on a GPU what the estimate fits into the free memory. `Run.fit_into_memory` tries it.
"""

import gc
from pathlib import Path

import torch

from durable.errors import with_hint
from symbert import count_parameters
from train.environment import recorded_micro_batch
from train.errors import TrainError
from train.predict import PRECISIONS, default_micro_batch_size
from train.ranks import ALONE, Ranks
from train.recipe import Recipe, symbert_config

BYTES_PER_PARAMETER = 16
"""fp32 weights, gradients and AdamW's two moments."""
EXCHANGED_BYTES_PER_PARAMETER = 4
"""Under several ranks DistributedDataParallel keeps the gradients once more, in the buckets that it exchanges."""
SHARE_OF_FREE = 0.9
"""Of a GPU's free memory, for what is estimated; libraries and gaps between tensors take from it too."""


def memory_bytes(recipe: Recipe, device_type: str, size: int, ranks: int = 1) -> int:
    """About: weights, gradients and moments, and the activations of one micro-batch of `size` samples.

    The recipe's precision must be resolved.
    """
    each = BYTES_PER_PARAMETER + (EXCHANGED_BYTES_PER_PARAMETER if ranks > 1 else 0)
    return each * count_parameters(symbert_config(recipe.model)) + _activation_bytes(recipe, device_type, size)


def fitting_micro_batch(recipe: Recipe, free: int, ranks: int = 1) -> int:
    """The largest share of a batch or power of two below it that fits into `free` bytes of a GPU; 1 if none does."""
    share = -(-recipe.training.batch_size // ranks)
    powers = [1 << exponent for exponent in reversed(range((share - 1).bit_length()))]
    room = SHARE_OF_FREE * free
    return next((size for size in (share, *powers) if memory_bytes(recipe, "cuda", size, ranks) <= room), 1)


def with_micro_batch(recipe: Recipe, device: torch.device, out: Path, ranks: Ranks = ALONE) -> Recipe:
    """The recipe with runtime.micro_batch_size as given, else as the run's last invocation had it, else as it fits.

    The same on all ranks. The recipe's precision must be resolved, and nothing allocated on the device.
    """
    if recipe.runtime.micro_batch_size is not None:
        return recipe
    recorded = recorded_micro_batch(out, device) if ranks.first else 0
    found = int(ranks.total(torch.tensor(recorded), device))
    return with_size(recipe, found or _least(_micro_batch(recipe, device, ranks.count), device, ranks))


def micro_batch_size(recipe: Recipe, device: torch.device) -> int:
    """Samples a forward pass: as set, else what an ordinary machine holds."""
    return min(recipe.runtime.micro_batch_size or default_micro_batch_size(device), recipe.training.batch_size)


def with_size(recipe: Recipe, size: int) -> Recipe:
    """The recipe with this micro-batch."""
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"micro_batch_size": size})})


def give_back_memory() -> None:
    """Let go of what nothing holds any more, also of what torch keeps of it for later on a GPU, as if it were used.

    Libraries and the loader of compiled kernels ask CUDA for memory, which does not know what torch could do without.
    """
    gc.collect()
    torch.cuda.empty_cache()


def lack_of_memory(step: int, device: torch.device, size: int) -> TrainError:
    """The refusal that proposes a smaller micro-batch."""
    refusal = TrainError(f"step {step}: {device} has not the memory for micro-batches of {size} samples")
    smaller = f"--set runtime.micro_batch_size={size // 2}, which changes rounding and dropout alone"
    return with_hint(refusal, smaller if size > 1 else "a smaller model, or shorter samples")


def _micro_batch(recipe: Recipe, device: torch.device, ranks: int) -> int:
    if device.type == "cuda":
        give_back_memory()  # of an earlier run in this process
        return fitting_micro_batch(recipe, torch.cuda.mem_get_info(device)[0], ranks)
    return micro_batch_size(recipe, device)


def _least(size: int, device: torch.device, ranks: Ranks) -> int:
    sizes = torch.zeros(ranks.count, dtype=torch.int64)
    sizes[ranks.number] = size
    return int(ranks.total(sizes, device).min())


def _activation_bytes(recipe: Recipe, device_type: str, size: int) -> int:
    model, width = recipe.model, PRECISIONS[recipe.training.precision].itemsize
    tokens = size * recipe.data.sequence_length
    # A layer keeps about 16 tensors of the hidden size and 3 of the feed-forward size for its backward pass.
    layer = tokens * (16 * model.hidden_size + 3 * model.intermediate_size) * width
    if device_type == "cpu":  # probabilities and dropout words; the GPU's kernel keeps neither
        layer += 2 * model.num_attention_heads * tokens * recipe.data.sequence_length * width
    # The logits of the masked tokens: as computed, in fp32, and the gradient of each.
    logits = round(recipe.masking.probability * tokens) * model.vocab_size * 2 * (width + 4)
    return model.num_hidden_layers * layer + logits
