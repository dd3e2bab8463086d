"""AdamW with its weight decay decided parameter by parameter, and the learning rate of each step."""

from collections.abc import Iterator

import torch
from torch import nn

from train.recipe import OptimizerSection, ScheduleSection

DIAGONALS = frozenset({"query_scale", "key_scale", "value_scale"})
"""The shared operator's diagonals. Kowsher et al. (2024) do not say whether they decay; here they do not: they scale
features as LayerNorm's weights do, and decay would pull them from their first value 1 towards 0."""


def make_optimizer(model: nn.Module, settings: OptimizerSection) -> torch.optim.AdamW:
    """Fused AdamW over two groups, decayed and not; the learning rate is set anew at each step."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter, decays in weight_decay(model, settings.decay_pairwise):
        (decayed if decays else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)


def weight_decay(model: nn.Module, decay_pairwise: bool = True) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, parameter and whether it decays, for every trainable parameter once.

    Decided by what a parameter is, not by its shape: the pairwise operator's S has three axes and no module of its
    own, the diagonals of the shared operator have one axis and are no biases. An unknown kind is our bug.
    """
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            yield f"{module_name}.{name}".removeprefix("."), parameter, _decays(module, name, decay_pairwise)


def _decays(module: nn.Module, name: str, decay_pairwise: bool) -> bool:
    if isinstance(module, nn.LayerNorm) or name == "bias" or name in DIAGONALS:
        return False
    if name == "pairwise":
        return decay_pairwise
    assert isinstance(module, nn.Linear | nn.Embedding), f"no decision on the decay of {type(module).__name__}.{name}"
    return True


def learning_rate(step: int, peak: float, schedule: ScheduleSection) -> float:
    """The rate of step `step`, counted from 1, as transformers' linear schedule has it: the first step's is 0."""
    done = step - 1
    if done < schedule.warmup_steps:
        return peak * done / schedule.warmup_steps
    return peak * (schedule.max_steps - done) / max(1, schedule.max_steps - schedule.warmup_steps)
