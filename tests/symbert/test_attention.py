from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symbert import OPERATORS, DotProduct, SelfAttention, SymbertConfig, SymbertModel

DOT_PRODUCT = [name for name, operator in OPERATORS.items() if issubclass(operator, DotProduct)]


def attention(config: SymbertConfig) -> Any:
    """The first layer's attention with random weights and biases, of standard deviation 0.5, in float64."""
    config._attn_implementation = "sdpa"
    module = OPERATORS[config.layer_operators[0]](config).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def plain_query_key_value(module: Any, head: int, hidden_LD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One head's Q, K and V by the formula of its operator, written with no reshaping."""
    rows = slice(head * module.head_size, (head + 1) * module.head_size)

    def projected(linear: nn.Linear) -> Tensor:
        return hidden_LD @ linear.weight[rows].T + linear.bias[rows]

    if hasattr(module, "shared"):
        shared = projected(module.shared)
        scales = (module.query_scale, module.key_scale, module.value_scale)
        query, key, value = (shared @ torch.diag(scale[rows]) for scale in scales)
        return query, key, value
    query = projected(module.query)
    key = projected(module.key) if hasattr(module, "key") else query
    if hasattr(module, "pairwise"):
        query = query @ module.pairwise[head]
    return query, key, projected(module.value)


@pytest.mark.parametrize("operator", DOT_PRODUCT)
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_an_operator_agrees_with_plain_softmax_of_its_formula(config: Any, operator: str, gain: float) -> None:
    module = attention(config(operator, attention_logit_gain=gain))
    hidden = torch.randn(2, 5, 21, dtype=torch.float64)
    context, probabilities = module(hidden)
    assert probabilities is None
    for row in range(2):
        for head in range(3):
            query, key, value = plain_query_key_value(module, head, hidden[row])
            expected = (gain * query @ key.T / 7**0.5).softmax(-1) @ value
            torch.testing.assert_close(context[row, :, head * 7 : (head + 1) * 7], expected)


def scores(module: Any, hidden: Tensor) -> Tensor:
    query, key, _ = module.project(hidden)
    return query @ key.transpose(2, 3)


@pytest.mark.parametrize("operator", ["symmetric", "shared"])
def test_scores_of_a_symmetric_operator_equal_their_transpose(config: Any, operator: str) -> None:
    found = scores(attention(config(operator)), torch.randn(2, 5, 21, dtype=torch.float64))
    torch.testing.assert_close(found, found.transpose(2, 3))


@pytest.mark.parametrize("operator", ["original", "pairwise"])
def test_scores_of_the_other_operators_do_not(config: Any, operator: str) -> None:
    found = scores(attention(config(operator)), torch.randn(2, 5, 21, dtype=torch.float64))
    assert (found - found.transpose(2, 3)).abs().max() > 0.1


def test_pairwise_with_identity_matrices_is_symmetric(config: Any) -> None:
    pairwise, symmetric = attention(config("pairwise")), attention(config("symmetric"))
    symmetric.load_state_dict({name: w for name, w in pairwise.state_dict().items() if name != "pairwise"})
    with torch.no_grad():
        pairwise.pairwise.copy_(torch.eye(7))
    hidden = torch.randn(2, 5, 21, dtype=torch.float64)
    torch.testing.assert_close(pairwise(hidden)[0], symmetric(hidden)[0])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("masked", [False, True])
def test_sdpa_equals_eager(config: Any, operator: str, masked: bool) -> None:
    model = SymbertModel(config(operator)).eval()
    ids = torch.randint(1, 53, (2, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]) if masked else None
    assert model.config._attn_implementation == "sdpa"
    fused = model(ids, mask).last_hidden_state
    model.set_attn_implementation("eager")
    eager = model(ids, mask).last_hidden_state
    real = slice(None) if mask is None else mask.bool()
    torch.testing.assert_close(fused[real], eager[real])


@pytest.mark.parametrize("operator", DOT_PRODUCT)
def test_asking_for_probabilities_uses_the_eager_kernel_and_changes_no_hidden_state(config: Any, operator: str) -> None:
    model = SymbertModel(config(operator)).eval()
    ids, mask = torch.randint(1, 53, (2, 5)), torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    plain, asked = model(ids, mask), model(ids, mask, output_attentions=True)
    assert plain.attentions is None
    assert [tuple(p.shape) for p in asked.attentions] == [(2, 3, 5, 5)] * 2
    for probabilities in asked.attentions:
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3, 5))
        assert probabilities[1, :, :, :2].abs().max() < 1e-12
    torch.testing.assert_close(plain.last_hidden_state[mask.bool()], asked.last_hidden_state[mask.bool()])


@pytest.mark.parametrize("operator", DOT_PRODUCT)
def test_packed_rows_reach_the_fused_kernel_without_a_mask(
    config: Any, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def record(*tensors: Tensor, **options: Any) -> Tensor:
        calls.append(options)
        return fused(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    SymbertModel(config(operator))(torch.randint(1, 53, (2, 5)))
    assert [(call["attn_mask"], call["is_causal"]) for call in calls] == [(None, False)] * 2


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_does_not_change_the_unpadded_positions(config: Any, operator: str, side: str) -> None:
    model = SymbertModel(config(operator)).double().eval()
    ids = torch.randint(1, 53, (3, 5))
    before, after = (0, 4) if side == "right" else (4, 0)
    padded = nn.functional.pad(ids, (before, after), value=11)
    mask = nn.functional.pad(torch.ones_like(ids), (before, after))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(ids).last_hidden_state
    found = model(padded, mask, position_ids=positions).last_hidden_state[:, before : before + 5]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("init", "std"), [("normal", 1.0), ("scaled", 1 / 8)], ids=["as published", "divided by sqrt(64)"]
)
def test_the_pairwise_matrices_start_with_the_named_standard_deviation(init: str, std: float) -> None:
    config = SymbertConfig.of_size("small", num_hidden_layers=1, vocab_size=64, pairwise_init=init)
    config.attention_operator = "pairwise"
    pairwise = SymbertModel(config).encoder.layer[0].attention.self.pairwise
    assert tuple(pairwise.shape) == (8, 64, 64)
    assert pairwise.mean().item() == pytest.approx(0, abs=5 * std / 32768**0.5)
    assert pairwise.std().item() == pytest.approx(std, rel=0.02)


def test_the_pairwise_matrices_can_start_as_the_identity(config: Any) -> None:
    model = SymbertModel(config("pairwise", pairwise_init="identity"))
    assert torch.equal(model.encoder.layer[1].attention.self.pairwise, torch.eye(7).expand(3, 7, 7))


def test_the_diagonals_of_shared_start_at_one(config: Any) -> None:
    module = SymbertModel(config("shared")).encoder.layer[0].attention.self
    for scale in (module.query_scale, module.key_scale, module.value_scale):
        assert torch.equal(scale, torch.ones(21))


@pytest.mark.parametrize("operator", OPERATORS)
def test_projections_start_as_in_bert(operator: str) -> None:
    config = SymbertConfig.of_size("small", num_hidden_layers=1, vocab_size=64, attention_operator=operator)
    for name, parameter in SymbertModel(config).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "LayerNorm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif "self" in name and parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.02), name


def test_first_pairwise_scores_are_larger_than_the_original_operators_by_the_root_of_the_head_size() -> None:
    def spread(operator: str, **others: Any) -> float:
        torch.manual_seed(1)
        config = SymbertConfig.of_size("base", num_hidden_layers=1, attention_operator=operator, **others)
        model = SymbertModel(config).eval()
        with torch.no_grad():
            ids = torch.randint(1000, 30000, (1, 256))
            embedded = model.embeddings(model.embeddings.word_embeddings(ids), None, None)
            module = model.encoder.layer[0].attention.self
            found = scores(module, embedded)[0] * module.scaling
        return found[:, ~torch.eye(256, dtype=torch.bool)].std().item()

    original = spread("original")
    assert spread("pairwise") / original == pytest.approx(8, rel=0.1)
    assert spread("pairwise", pairwise_init="scaled") / original == pytest.approx(1, rel=0.1)
    assert spread("original", attention_logit_gain=8.0) / original == pytest.approx(8, rel=1e-4)


def test_a_new_operator_needs_one_class_and_its_name(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Linear(OPERATORS["symmetric"]):  # type: ignore[name-defined, misc]
        pass

    monkeypatch.setitem(OPERATORS, "linear", Linear)
    model = SymbertModel(config(["original", "linear"]))
    assert isinstance(model.encoder.layer[1].attention.self, Linear)
    assert isinstance(model.encoder.layer[1].attention.self, SelfAttention)
