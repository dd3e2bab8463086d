import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from symbert import OPERATORS
from tests.train.tiny import tiny_recipe
from train.cpu import ATTENTION, DropoutByBits, attention, keep_mask, masked, quicken
from train.pretrain import first_model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_words_keep_or_drop_whole_elements_at_the_right_rate(dtype: torch.dtype, probability: float) -> None:
    torch.manual_seed(0)
    values = torch.full((1000, 301), 3.0, dtype=dtype)
    words, kept = keep_mask(values, probability)
    result = masked(values, words)
    assert set(result.unique().tolist()) == {0.0, 3.0}
    assert kept == pytest.approx(1 - probability, abs=2e-5)
    assert (result != 0).double().mean().item() == pytest.approx(kept, abs=0.003)


def test_neighbouring_elements_are_kept_independently() -> None:
    torch.manual_seed(0)
    words, kept = keep_mask(torch.empty(400_000, dtype=torch.bfloat16), 0.5)
    alive = (words != 0).double() - kept
    for distance in (1, 2, 3, 4, 8):
        correlation = (alive[:-distance] * alive[distance:]).mean() / (kept * (1 - kept))
        assert abs(correlation.item()) < 0.008


def test_the_same_seed_drops_the_same_elements() -> None:
    dropout, values = DropoutByBits(0.3), torch.ones(50, 3)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(dropout(values))
    assert torch.equal(*results)
    assert not torch.equal(dropout(values), results[0])


def test_dropout_keeps_the_mean_and_its_gradient_follows_the_mask() -> None:
    torch.manual_seed(0)
    values = torch.full((300, 301), 2.0, dtype=torch.float64, requires_grad=True)
    result = DropoutByBits(0.1)(values.t())
    assert result.mean().item() == pytest.approx(2.0, abs=0.01)
    result.sum().backward()
    assert torch.allclose(values.grad, result.detach().t() / 2.0)


def test_nothing_is_dropped_in_evaluation_or_at_probability_zero() -> None:
    values = torch.ones(5)
    assert DropoutByBits(0.5).eval()(values) is values
    assert DropoutByBits(0.0)(values) is values


def inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 5, 7, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradients_of_attention_are_right(dropout: float) -> None:
    def seeded(*tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attention(nn.Identity().train(), *tensors, None, dropout=dropout, scaling=0.4)[0]

    assert torch.autograd.gradcheck(seeded, inputs())


def test_attention_with_dropout_is_softmax_with_some_probabilities_dropped() -> None:
    query, key, value = inputs()
    torch.manual_seed(3)
    found, _ = attention(nn.Identity().train(), query, key, value, None, dropout=0.3, scaling=0.4)
    probabilities = (query @ key.transpose(2, 3) * 0.4).softmax(-1)
    torch.manual_seed(3)
    words, kept = keep_mask(probabilities, 0.3)
    expected = torch.where(words != 0, probabilities / kept, 0.0) @ value
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize("mask", [None, torch.tensor([True, True, True, False, False]).expand(2, 1, 5, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_attention_without_dropout_is_sdpa(mask: Tensor | None, training: bool) -> None:
    query, key, value = inputs()
    with torch.set_grad_enabled(training):
        found, _ = attention(nn.Identity().train(training), query, key, value, mask, dropout=0.0)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_without_dropout_no_random_number_is_drawn() -> None:
    tensors = inputs()
    before = torch.get_rng_state()
    attention(nn.Identity().train(), *tensors, None, dropout=0.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_quickened_model_evaluates_and_saves_as_before(tmp_path: Path, operator: str) -> None:
    plain, quick = first_model(tiny_recipe(operator)), first_model(tiny_recipe(operator))
    quicken(quick)
    assert not any(type(module) is nn.Dropout for module in quick.modules())
    assert any(type(module) is DropoutByBits for module in quick.modules())
    assert list(plain.state_dict()) == list(quick.state_dict())
    tokens = torch.randint(101, (2, 9))
    torch.testing.assert_close(quick.eval()(tokens).logits, plain.eval()(tokens).logits)
    quick.save_pretrained(tmp_path)
    assert ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
