import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from symbert import OPERATORS, SymbertForMaskedLM
from tests.train.tiny import tiny_recipe
from train.optimizer import DIAGONALS, learning_rate, make_optimizer, weight_decay
from train.recipe import OptimizerSection, ScheduleSection, symbert_config


@pytest.mark.parametrize("operator", OPERATORS)
def test_all_but_biases_norms_and_diagonals_decay(operator: str) -> None:
    model = SymbertForMaskedLM(symbert_config(tiny_recipe(operator).model))
    decays = {name: decision for name, _, decision in weight_decay(model)}
    assert decays.keys() == dict(model.named_parameters()).keys()
    for name, decision in decays.items():
        last = name.rpartition(".")[2]
        assert decision != (last == "bias" or "LayerNorm" in name or last in DIAGONALS), name


def test_the_decay_of_s_can_be_turned_off() -> None:
    model = SymbertForMaskedLM(symbert_config(tiny_recipe("pairwise").model))
    decays = {name: decision for name, _, decision in weight_decay(model, decay_pairwise=False)}
    matrices = [decision for name, decision in decays.items() if name.endswith("pairwise")]
    assert matrices
    assert not any(matrices)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_parameter_is_optimized_once(operator: str) -> None:
    model = SymbertForMaskedLM(symbert_config(tiny_recipe(operator).model))
    optimizer = make_optimizer(model, OptimizerSection())
    optimized = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(optimized) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize(("warmup", "steps"), [(4, 20), (0, 7), (5, 5), (1, 2)])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # no optimizer step is taken
def test_the_learning_rate_is_that_of_transformers_linear_schedule(warmup: int, steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    peer = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(1, steps + 1):
        ours = learning_rate(step, 3e-4, ScheduleSection(max_steps=steps, warmup_steps=warmup))
        assert ours == pytest.approx(peer.get_last_lr()[0], rel=1e-12)
        peer.step()
