import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertForMaskedLM

from symbert import OPERATORS, DotProduct, SymbertForMaskedLM, SymbertModel
from symbert.analysis import analyse, attention_facts, load_encoder, symmetry_score, weight_facts
from symbert.export import fold

DOT_PRODUCT = [name for name, operator in OPERATORS.items() if issubclass(operator, DotProduct)]


def randomised(model: Any) -> Any:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def test_the_symmetry_score_equals_a_direct_computation() -> None:
    query, key = torch.randn(7, 21).double(), torch.randn(7, 21).double()
    matrix = query.T @ key
    direct = torch.trace(matrix @ matrix) / matrix.square().sum()
    assert symmetry_score(query, key) == pytest.approx(direct.item())


def test_the_symmetry_score_is_one_zero_or_minus_one_where_it_must_be() -> None:
    square, anti = torch.randn(21, 21).double(), torch.randn(21, 21).double()
    identity = torch.eye(21).double()
    assert symmetry_score(square, square) == pytest.approx(1)
    assert symmetry_score(identity, anti - anti.T) == pytest.approx(-1)
    assert abs(symmetry_score(torch.randn(64, 768), torch.randn(64, 768))) < 0.01


@pytest.mark.parametrize("operator", DOT_PRODUCT)
def test_symmetry_of_a_layer_and_its_heads_is_that_of_its_scores(config: Any, operator: str) -> None:
    model = randomised(SymbertModel(config(operator)))
    found = weight_facts(model)[1]
    module = model.encoder.layer[1].attention.self
    for linear in module.children():
        nn.init.zeros_(linear.bias)  # they have no part in the score
    query, key, _ = module.project(torch.eye(21).double()[None])  # the rows of W^T, head by head
    forms = query[0] @ key[0].mT
    for head, form in zip(found["heads"], forms, strict=True):
        direct = torch.trace(form @ form) / form.square().sum()
        assert head["symmetry"] == pytest.approx(direct.item())
    whole = forms.sum(0)
    assert found["symmetry"] == pytest.approx((torch.trace(whole @ whole) / whole.square().sum()).item())
    if operator in ("symmetric", "shared"):
        assert found["symmetry"] == pytest.approx(1)


def test_the_spectrum_and_distance_of_pairwise_equal_a_direct_computation(config: Any) -> None:
    model = randomised(SymbertModel(config("pairwise")))
    head = weight_facts(model)[0]["heads"][2]
    matrix = model.encoder.layer[0].attention.self.pairwise[2].detach()
    squares = torch.linalg.eigvalsh(matrix.T @ matrix).flip(0).sqrt()
    torch.testing.assert_close(torch.tensor(head["singular_values"]).double(), squares, atol=1e-6, rtol=1e-6)
    distance = math.sqrt((matrix - torch.eye(7)).square().sum()) / math.sqrt(7)
    assert head["distance_from_identity"] == pytest.approx(distance)


def test_entropy_and_asymmetry_equal_a_direct_computation(config: Any) -> None:
    model = randomised(SymbertModel(config("original")))
    sequences = [[3, 4, 5, 6], [7, 8]]
    found = attention_facts(model, sequences)[1]
    for head in range(3):
        entropies, asymmetries = [], []
        for ids in sequences:
            probabilities = model(torch.tensor([ids]), output_attentions=True).attentions[1][0, head]
            rows = [-sum(p.item() * math.log(p.item()) for p in row) for row in probabilities]
            entropies.append(sum(rows) / len(rows))
            numerator = sum(
                (probabilities[i, j] - probabilities[j, i]).item() ** 2
                for i in range(len(ids))
                for j in range(len(ids))
            )
            asymmetries.append(math.sqrt(numerator) / math.sqrt(probabilities.square().sum().item()))
        assert found["entropy"][head] == pytest.approx(sum(entropies) / 2)
        assert found["asymmetry"][head] == pytest.approx(sum(asymmetries) / 2)


def test_analysis_of_a_hybrid_leaves_additive_layers_empty(config: Any) -> None:
    found = analyse(SymbertModel(config(["additive", "symmetric"])).eval(), [[3, 4, 5]])
    additive, symmetric = found["layers"]
    assert (additive["symmetry"], additive["heads"]) == (None, [])
    assert set(symmetric["heads"][0]) == {"head", "symmetry", "entropy", "asymmetry"}
    assert found["means"]["symmetry"] == pytest.approx(1, abs=1e-6)
    assert found["text"] == {"sequences": 1, "tokens": 3}


def test_without_text_there_are_only_facts_of_the_weights(config: Any) -> None:
    found = analyse(SymbertModel(config("pairwise")).eval(), [])
    assert set(found["means"]) == {"symmetry", "distance_from_identity"}


def test_a_stock_bert_is_analysed_as_the_original_operator(config: Any, tmp_path: Path) -> None:
    model = randomised(SymbertForMaskedLM(config("pairwise"))).float()
    fold(model).save_pretrained(tmp_path / "bert")
    assert isinstance(BertForMaskedLM.from_pretrained(tmp_path / "bert"), BertForMaskedLM)
    model.save_pretrained(tmp_path / "ours")
    stock, ours = (analyse(load_encoder(tmp_path / name), [[3, 4, 5, 6, 7]]) for name in ("bert", "ours"))
    assert [layer["operator"] for layer in stock["layers"]] == ["original", "original"]
    for name in ("symmetry", "entropy", "asymmetry"):
        assert stock["means"][name] == pytest.approx(ours["means"][name], rel=1e-4)
