from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertForMaskedLM, BertForSequenceClassification

from symbert import (
    OPERATORS,
    DotProduct,
    SymbertError,
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertModel,
)
from symbert.checkpoint import load_checkpoint
from symbert.export import compare, compare_with, fold

FOLDABLE = [name for name, operator in OPERATORS.items() if issubclass(operator, DotProduct)]
HEADS = [
    SymbertModel,
    SymbertForMaskedLM,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertForQuestionAnswering,
]


def randomised(model: Any, std: float = 0.05) -> Any:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval()


def assert_equal_outputs(model: Any, bert: Any, padding: str) -> None:
    ids = torch.randint(1, 53, (3, 5))
    mask = torch.ones_like(ids)
    if padding != "none":
        mask[1:, (slice(3, None) if padding == "right" else slice(None, 2))] = 0
    types = torch.randint(2, (3, 5))
    ours, theirs = (one(ids, mask, types, output_hidden_states=True) for one in (model, bert))
    seen = mask.bool()
    for found, expected in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(found[seen], expected[seen], atol=1e-12, rtol=0)
    for found, expected in zip(ours.to_tuple()[:1], theirs.to_tuple()[:1], strict=True):
        if found.shape[:2] == seen.shape:
            found, expected = found[seen], expected[seen]
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("operator", FOLDABLE)
def test_a_folded_model_equals_its_origin_in_float64(config: Any, operator: str, head: Any, padding: str) -> None:
    model = randomised(head(config(operator, attention_logit_gain=1.7)).double())
    bert = fold(model)
    assert type(bert).__module__ == "transformers.models.bert.modeling_bert"
    assert bert.dtype == torch.float64
    assert_equal_outputs(model, bert, padding)


@pytest.mark.parametrize("operator", FOLDABLE)
def test_a_folded_model_equals_its_origin_in_float32(config: Any, operator: str) -> None:
    model = randomised(SymbertForMaskedLM(config(operator)))
    assert compare_with(model, fold(model)) < 1e-5


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0.2])
def test_a_difference_in_any_output_fails_the_export(wrong: float) -> None:
    outputs = [torch.full((2, 3, 5), 100.0), torch.zeros(2, 4)]
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = [output.clone() for output in outputs]
    found[0][1, 2] = wrong  # padding
    found[0][0, 0] += 0.01
    assert compare(outputs, found, mask) == pytest.approx(0.01, rel=1e-3)
    found[1][1, 3] = wrong
    with pytest.raises(SymbertError, match="output 1 of the export differs from the checkpoint's by"):
        compare(outputs, found, mask)


def test_a_folded_model_says_how_many_positions_were_trained(config: Any) -> None:
    assert fold(SymbertModel(config(trained_positions=7))).config.to_dict()["trained_positions"] == 7
    assert "trained_positions" not in fold(SymbertModel(config())).config.to_dict()


def test_a_folded_question_answering_model_has_a_start_and_an_end_whatever_labels_it_was_given(config: Any) -> None:
    model = randomised(SymbertForQuestionAnswering(config("pairwise", num_labels=3)))
    assert compare_with(model, fold(model)) < 1e-5


@pytest.mark.parametrize(
    "parts",
    [{"type_vocab_size": 0}, {"feed_forward_bias": False, "hidden_act": "relu"}, {"position_embedding": "sinusoidal"}],
    ids=str,
)
def test_parts_that_bert_can_imitate_are_folded_too(config: Any, parts: dict[str, Any]) -> None:
    model = randomised(SymbertForMaskedLM(config("pairwise", **parts)).double())
    bert = fold(model)
    ids = torch.randint(1, 53, (3, 5))
    torch.testing.assert_close(bert(ids).logits, model(ids).logits, atol=1e-12, rtol=0)


def test_layers_with_different_operators_fold_each_by_its_own(config: Any) -> None:
    model = randomised(SymbertForMaskedLM(config(["pairwise", "shared"])).double())
    assert_equal_outputs(model, fold(model), "right")


@pytest.mark.parametrize(
    ("operator", "others", "reason"),
    [
        (["original", "additive"], {}, "layer 1 cannot be folded: its operator is additive"),
        ("original", {"norm_placement": "sub"}, "`norm_placement` sub cannot be folded: BERT normalises after"),
        ("pairwise", {"norm_placement": "pre"}, "no weights can move a LayerNorm"),
    ],
)
def test_what_no_stock_bert_can_express_is_refused_with_the_reason(
    config: Any, operator: Any, others: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SymbertError, match=reason):
        fold(SymbertForMaskedLM(config(operator, **others)))


def test_folding_leaves_the_model_and_the_random_stream_as_they_were(config: Any) -> None:
    model = SymbertForMaskedLM(config("pairwise")).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    assert fold(model).training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_folded_checkpoint_is_a_plain_bert_folder(config: Any, tmp_path: Path) -> None:
    model = randomised(SymbertForSequenceClassification(config("shared", num_labels=3)))
    fold(model).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.randint(1, 53, (2, 5))
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-5, rtol=0)


def test_a_checkpoint_opens_with_the_head_it_was_saved_with(config: Any, tmp_path: Path) -> None:
    for head in HEADS:
        head(config("pairwise")).save_pretrained(tmp_path / head.__name__)
        loaded = load_checkpoint(tmp_path / head.__name__)
        assert type(loaded) is head
        assert not loaded.training


def test_a_folder_that_is_no_checkpoint_is_refused_by_name(config: Any, tmp_path: Path) -> None:
    with pytest.raises(SymbertError, match=r"holds no config\.json, expected a checkpoint folder"):
        load_checkpoint(tmp_path)
    model = SymbertForMaskedLM(config())
    model.config.save_pretrained(tmp_path / "bare")
    with pytest.raises(SymbertError, match=r"bare holds no weights, expected model\.safetensors"):
        load_checkpoint(tmp_path / "bare")
    fold(model).save_pretrained(tmp_path / "bert")
    with pytest.raises(SymbertError, match="holds a `bert` model, expected a `symbert` one"):
        load_checkpoint(tmp_path / "bert")
    assert isinstance(BertForMaskedLM.from_pretrained(tmp_path / "bert"), BertForMaskedLM)


def test_weights_that_do_not_fit_the_configuration_are_refused(config: Any, tmp_path: Path) -> None:
    SymbertForMaskedLM(config("symmetric")).save_pretrained(tmp_path)
    config("pairwise", architectures=["SymbertForMaskedLM"]).save_pretrained(tmp_path)
    with pytest.raises(SymbertError, match=r"do not fit config\.json; missing keys: symbert\.encoder\.layer\.0\.atten"):
        load_checkpoint(tmp_path)
