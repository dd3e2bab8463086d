from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from symbert import SymbertError, SymbertForMaskedLM
from symbert.export import fold
from symbert.from_bert import load_bert, start_from_bert


@pytest.fixture
def bert() -> Any:
    """A BERT of the fixtures' sizes, with weights large enough for every term of the scores to matter."""
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=53, hidden_size=21, num_attention_heads=3, num_hidden_layers=2, intermediate_size=34,
            max_position_embeddings=19,
        )
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def test_original_started_from_a_bert_equals_it(config: Any, bert: Any) -> None:
    model = SymbertForMaskedLM(config("original")).eval()
    report = start_from_bert(model, bert)
    assert [start.error for start in report] == [0.0, 0.0]
    ids = torch.randint(1, 53, (2, 5))
    torch.testing.assert_close(model(ids).logits, bert(ids).logits)


def scores(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return query @ key.transpose(2, 3)


@pytest.mark.parametrize("operator", ["pairwise", "symmetric"])
def test_the_printed_error_is_that_of_the_scores_over_random_pairs(config: Any, bert: Any, operator: str) -> None:
    model = SymbertForMaskedLM(config(operator)).eval()
    errors = [start.error for start in start_from_bert(model, bert)]
    original = SymbertForMaskedLM(config("original")).eval()
    start_from_bert(original, bert)
    norm = bert.bert.encoder.layer[0].output.LayerNorm
    left, right = (torch.randn(40, 200, 21) * norm.weight + norm.bias for _ in range(2))
    ours, theirs = (one.symbert.encoder.layer[1].attention.self for one in (model, original))
    found = scores(ours.project(left)[0], ours.project(right)[1])
    expected = scores(theirs.project(left)[0], theirs.project(right)[1])
    measured = ((found - expected).square().mean() / expected.square().mean()).sqrt().item()
    assert errors[1] == pytest.approx(measured, rel=0.05)


def test_the_least_squares_matrix_is_better_than_its_neighbours_and_than_the_identity(config: Any, bert: Any) -> None:
    def error(pairwise: torch.Tensor) -> float:
        with torch.no_grad():
            module.pairwise.copy_(pairwise)
        found = scores(module.project(left)[0], module.project(right)[1])
        return (found - expected).square().mean().item()

    model, original = (SymbertForMaskedLM(config(operator)).eval() for operator in ("pairwise", "original"))
    for one in (model, original):
        start_from_bert(one, bert)
    module, theirs = (one.symbert.encoder.layer[0].attention.self for one in (model, original))
    norm = bert.bert.embeddings.LayerNorm
    left, right = (torch.randn(100, 200, 21) * norm.weight + norm.bias for _ in range(2))
    expected = scores(theirs.project(left)[0], theirs.project(right)[1])
    best = module.pairwise.detach().clone()
    least = error(best)
    assert least < error(torch.eye(7).expand(3, 7, 7))
    for _ in range(10):
        assert least < error(best + 0.05 * torch.randn(3, 7, 7))


def test_pairwise_recovers_a_key_that_is_the_query_times_a_matrix(config: Any) -> None:
    pairwise = SymbertForMaskedLM(config("pairwise")).eval()
    for parameter in pairwise.parameters():
        nn.init.normal_(parameter, std=0.4)
    again = SymbertForMaskedLM(config("pairwise")).eval()
    # Folding puts U into the query, so the key is U^-1 times it: an invertible matrix loses nothing.
    report = start_from_bert(again, fold(pairwise))
    assert max(start.error or 0 for start in report) < 1e-3
    ids = torch.randint(1, 53, (2, 5))
    torch.testing.assert_close(again(ids).logits, pairwise(ids).logits, atol=1e-3, rtol=1e-3)


def test_a_hybrid_takes_the_self_attention_layers_and_leaves_the_rest_random(config: Any, bert: Any) -> None:
    parts = {"norm_placement": "sub", "feed_forward_bias": False, "position_embedding": "sinusoidal"}
    model = SymbertForMaskedLM(config(["additive", "original"], type_vocab_size=0, hidden_act="relu", **parts))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = start_from_bert(model, bert)
    assert [(start.operator, start.error) for start in report] == [("additive", None), ("original", 0.0)]
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {
        f"symbert.encoder.layer.1.{part}"
        for part in (
            "attention.self.query.weight", "attention.self.query.bias", "attention.self.key.weight",
            "attention.self.key.bias", "attention.self.value.weight", "attention.self.value.bias",
            "attention.output.dense.weight", "attention.output.dense.bias", "intermediate.dense.weight",
            "output.dense.weight",
        )
    }  # fmt: skip
    key = "symbert.encoder.layer.1.attention.self.key.weight"
    assert torch.equal(after[key], bert.bert.encoder.layer[1].attention.self.key.weight)


@pytest.mark.parametrize(
    ("operator", "others", "message"),
    [
        ("original", {"hidden_size": 24}, "`hidden_size` is 21 there and 24 here"),
        ("original", {"max_position_embeddings": 20}, "`max_position_embeddings` is 19 there and 20 here"),
        ("original", {"num_hidden_layers": 3, "vocab_size": 54}, "`num_hidden_layers` is 2 there and 3 here; `vocab"),
        ("shared", {}, "layer 0: `shared` cannot start from BERT"),
    ],
)
def test_what_cannot_start_from_this_bert_is_refused(
    config: Any, bert: Any, operator: str, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(SymbertError, match=message):
        start_from_bert(SymbertForMaskedLM(config(operator, **others)), bert)


def test_a_start_is_loaded_from_a_stock_bert_or_from_a_checkpoint_that_folds(
    config: Any, bert: Any, tmp_path: Path
) -> None:
    bert.save_pretrained(tmp_path / "stock")
    pairwise = SymbertForMaskedLM(config("pairwise")).eval()
    pairwise.save_pretrained(tmp_path / "ours")
    ids = torch.randint(1, 53, (2, 5))
    torch.testing.assert_close(load_bert(tmp_path / "stock")(ids).logits, bert(ids).logits)
    torch.testing.assert_close(load_bert(tmp_path / "ours")(ids).logits, pairwise(ids).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(SymbertError, match=r"holds no config\.json"):
        load_bert(tmp_path)
