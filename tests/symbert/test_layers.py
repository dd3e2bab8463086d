"""The parts around attention, alone and in every combination with the operators."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from symbert import (
    HYBRID_MODELS,
    OPERATORS,
    SymbertConfig,
    SymbertError,
    SymbertForMaskedLM,
    SymbertModel,
    count_parameters,
)
from symbert.attention import Additive, AttentionMask
from symbert.layers import Layer

PLACEMENTS = ["post", "pre", "sub"]
HYBRID = {
    "type_vocab_size": 0, "position_embedding": "sinusoidal", "hidden_act": "relu", "feed_forward_bias": False,
}  # fmt: skip


def randomised(module: nn.Module) -> Any:
    for parameter in module.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_works_with_every_norm_placement(config: Any, operator: str, placement: str) -> None:
    model = SymbertForMaskedLM(config(operator, norm_placement=placement, **HYBRID)).double().eval()
    ids = torch.randint(1, 53, (3, 5))
    alone = model(ids).logits
    padded = model(nn.functional.pad(ids, (0, 4), value=11), nn.functional.pad(torch.ones_like(ids), (0, 4)))
    torch.testing.assert_close(padded.logits[:, :5], alone)
    positions = torch.tensor([13, 1, 4, 0, 0])
    sparse = model(ids, masked_positions=positions, labels=torch.tensor([2, 3, 5, -100, -100]))
    torch.testing.assert_close(sparse.logits, alone.flatten(0, 1)[positions])
    sparse.loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.any()) or not parameter.requires_grad, name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hbert-v1", 113_213_130), ("hbert-v2", 114_431_226), ("addbert", 116_867_418)],
)
def test_hybrid_parameter_counts(name: str, expected: int) -> None:
    assert count_parameters(SymbertConfig(**HYBRID_MODELS[name])) == expected


def test_the_parts_of_hybridbert_sum_to_its_layers() -> None:
    def size(operator: str) -> int:
        with torch.device("meta"):
            layer = Layer(SymbertConfig(**{**HYBRID_MODELS["addbert"], "attention_operator": operator}), 0)
        return sum(parameter.numel() for parameter in layer.parameters())

    assert (size("original"), size("additive")) == (7_091_712, 7_700_760)


@pytest.mark.parametrize(("name", "self_attention"), [("hbert-v1", [1, 3, 5, 7, 9, 11]), ("hbert-v2", [0, 1, 10, 11])])
def test_hybridbert_has_self_attention_in_these_layers(name: str, self_attention: list[int]) -> None:
    operators = SymbertConfig(**HYBRID_MODELS[name]).layer_operators
    assert [layer for layer, operator in enumerate(operators) if operator == "original"] == self_attention
    assert set(operators) == {"original", "additive"}


def plain_additive(module: Additive, hidden_LD: Tensor) -> Tensor:
    """Fastformer's equations for one sequence, head by head and position by position."""

    def head(states: Tensor, j: int) -> Tensor:
        return states[..., j * 7 : (j + 1) * 7]

    def pool(states: Tensor, scorer: nn.Linear) -> Tensor:
        pooled = []
        for j in range(3):
            weights = torch.stack([scorer(state)[j] / 7**0.5 for state in states]).softmax(0)
            pooled.append(sum(weight * head(state, j) for weight, state in zip(weights, states, strict=True)))
        return torch.cat(pooled)

    query, key, value = module.query(hidden_LD), module.key(hidden_LD), module.value(hidden_LD)
    mixed = torch.stack([pool(query, module.query_score) * k for k in key])
    return torch.stack(
        [module.transform(pool(mixed, module.key_score) * v) + q for v, q in zip(value, query, strict=True)]
    )


def test_additive_attention_agrees_with_its_equations(config: Any) -> None:
    module = randomised(Additive(config("additive")))
    hidden = torch.randn(2, 5, 21, dtype=torch.float64)
    context, probabilities = module(hidden)
    assert probabilities is None
    torch.testing.assert_close(context, torch.stack([plain_additive(module, row) for row in hidden]))


def test_additive_attention_refuses_a_mask_of_pairs(config: Any) -> None:
    model = SymbertModel(config("additive"))
    with pytest.raises(SymbertError, match=r"expected an attention mask of shape \(B, L\)"):
        model(torch.ones(2, 5, dtype=torch.long), torch.ones(2, 1, 5, 5, dtype=torch.bool))
    Additive(config("additive"))(torch.randn(2, 5, 21), AttentionMask(None, torch.ones(2, 5, dtype=torch.bool)))


def plain_layer(layer: Any, x: Tensor) -> Tensor:
    """The published equation of each placement; f is attention, g the widening half of the feed-forward."""

    def f(states: Tensor) -> Tensor:
        return layer.attention.self(states)[0]

    def g(states: Tensor) -> Tensor:
        return layer.intermediate.dense(states).relu()

    attention, intermediate, output = layer.attention, layer.intermediate, layer.output
    out, down = attention.output.dense, output.dense
    placement = attention.self.config.norm_placement
    if placement == "post":
        x = attention.output.LayerNorm(x + out(f(x)))
        return output.LayerNorm(x + down(g(x)))
    if placement == "pre":
        x = x + out(f(attention.LayerNorm(x)))
        return x + down(g(intermediate.LayerNorm(x)))
    x = x + out(attention.output.inner_LayerNorm(f(attention.LayerNorm(x))))
    return x + down(output.inner_LayerNorm(g(intermediate.LayerNorm(x))))


@pytest.mark.parametrize(("placement", "norms"), [("post", 2), ("pre", 2), ("sub", 4)])
def test_a_layer_agrees_with_the_equation_of_its_norm_placement(config: Any, placement: str, norms: int) -> None:
    layer = randomised(Layer(config("original", norm_placement=placement, hidden_act="relu"), 0))
    layer.attention.self.config._attn_implementation = "sdpa"
    assert sum(isinstance(module, nn.LayerNorm) for module in layer.modules()) == norms
    hidden = torch.randn(2, 5, 21, dtype=torch.float64)
    torch.testing.assert_close(layer(hidden)[0], plain_layer(layer, hidden))


@pytest.mark.parametrize(("placement", "normalised"), [("pre", True), ("sub", False)])
def test_only_pre_norm_ends_in_a_normalisation(config: Any, placement: str, normalised: bool) -> None:
    model = SymbertModel(config(norm_placement=placement)).eval()
    states = model(torch.randint(1, 53, (2, 5)), output_hidden_states=True)
    assert torch.equal(states.last_hidden_state, states.hidden_states[-1]) is not normalised
    if normalised:
        torch.testing.assert_close(states.last_hidden_state.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)


def test_sinusoidal_positions_are_those_of_the_formula_and_stay_fixed(config: Any, tmp_path: Path) -> None:
    model = SymbertForMaskedLM(config(position_embedding="sinusoidal"))
    table = model.symbert.embeddings.position_embeddings.weight
    expected = torch.empty(19, 21, dtype=torch.float64)
    for position in range(19):
        for column in range(21):
            angle = position / 10000 ** (2 * (column // 2) / 21)
            expected[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    torch.testing.assert_close(table, expected.float())
    ids = torch.randint(1, 53, (2, 5))
    model(ids, labels=ids).loss.backward()
    assert table.grad is None
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).symbert.embeddings.position_embeddings.weight
    assert torch.equal(loaded, table)
    assert not loaded.requires_grad


def test_a_model_without_token_types_ignores_them(config: Any) -> None:
    model = SymbertModel(config(type_vocab_size=0)).eval()
    assert not [name for name, _ in model.named_parameters() if "token_type" in name]
    ids = torch.randint(1, 53, (2, 5))
    assert torch.equal(model(ids, token_type_ids=torch.ones_like(ids))[0], model(ids)[0])


def test_a_feed_forward_without_biases_has_none(config: Any) -> None:
    names = {name for name, _ in SymbertModel(config(feed_forward_bias=False)).named_parameters()}
    for layer in range(2):
        assert f"encoder.layer.{layer}.intermediate.dense.bias" not in names
        assert f"encoder.layer.{layer}.output.dense.bias" not in names
        assert f"encoder.layer.{layer}.attention.output.dense.bias" in names


def test_hybrid_checkpoints_load_bit_for_bit(config: Any, tmp_path: Path) -> None:
    model = SymbertForMaskedLM(config(["additive", "pairwise"], norm_placement="sub", **HYBRID))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
