"""What a model does on a GPU, as far as a stand-in shows: no tensor of the CPU in the mix, no wait but for results."""

from collections import Counter
from typing import Any

import pytest
import torch

from symbert import (
    OPERATORS,
    DotProduct,
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertModel,
)
from symbert.analysis import analyse
from symbert.export import compare_with, fold
from symbert.from_bert import start_from_bert
from tests.devices import META, HostReads

OF_EACH_KIND: list[str | list[str]] = [*OPERATORS, ["additive", "pairwise"]]
FOLDABLE = [name for name, operator in OPERATORS.items() if issubclass(operator, DotProduct)]
HEADS = {
    SymbertModel: {},
    SymbertForMaskedLM: {"labels": (2, 11)},
    SymbertForSequenceClassification: {"labels": (2,)},
    SymbertForTokenClassification: {"labels": (2, 11)},
    SymbertForQuestionAnswering: {"start_positions": (2,), "end_positions": (2,)},
}


def ids(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.long, device=META)


@pytest.mark.parametrize(("head", "attention"), [*((head, "sdpa") for head in HEADS), (SymbertModel, "eager")])
@pytest.mark.parametrize("operator", OF_EACH_KIND, ids=str)
def test_no_model_waits_for_its_device_or_mixes_two(config: Any, operator: Any, head: Any, attention: str) -> None:
    model = head(config(operator, problem_type="single_label_classification")).to(META)
    model.set_attn_implementation(attention)
    given = {"input_ids": ids(2, 11), "attention_mask": ids(2, 11), "token_type_ids": ids(2, 11)}
    with HostReads() as reads:
        output = model.train()(**given, **{name: ids(*shape) for name, shape in HEADS[head].items()})
        output[0].sum().backward()
        model.eval()(**given)
        model(input_ids=given["input_ids"])
    assert not reads.places


@pytest.mark.parametrize("operator", OF_EACH_KIND, ids=str)
def test_sparse_prediction_does_not_wait_for_its_device(config: Any, operator: Any) -> None:
    model = SymbertForMaskedLM(config(operator)).to(META)
    with HostReads() as reads:
        model(input_ids=ids(2, 11), masked_positions=ids(5), labels=ids(5)).loss.backward()
    assert not reads.places


@pytest.mark.parametrize("operator", OF_EACH_KIND, ids=str)
def test_an_analysis_reads_its_results_alone(config: Any, operator: Any) -> None:
    model = SymbertModel(config(operator)).to(META)
    with HostReads() as reads:
        analyse(model, [[1, 2, 3], [4, 5]])
    operators = model.config.layer_operators
    products, pairwise = sum(name != "additive" for name in operators), operators.count("pairwise")
    expected = {
        "symmetry_scores": int(products > 0),
        "attention_facts": int(products > 0),
        "_head_facts": products + 2 * pairwise,
    }
    assert Counter(reads.places) == {place: count for place, count in expected.items() if count}


@pytest.mark.parametrize("operator", FOLDABLE)
def test_a_model_is_folded_and_compared_on_its_device(config: Any, operator: str) -> None:
    model = SymbertForMaskedLM(config(operator)).to(META)
    with HostReads() as reads:
        bert = fold(model)
        compare_with(model, bert)
    assert bert.device == META
    # Stock BERT, called by compare_with, looks whether its mask hides anything.
    assert set(reads.places) == {"fold", "compare_with", "compare"}


@pytest.mark.parametrize("operator", ["original", "symmetric", "pairwise", ["additive", "original"]], ids=str)
def test_a_model_starts_from_bert_on_their_device(config: Any, operator: Any) -> None:
    bert = fold(SymbertForMaskedLM(config("original"))).to(META)
    model = SymbertForMaskedLM(config(operator)).to(META)
    with HostReads() as reads:
        start_from_bert(model, bert)
    assert set(reads.places) <= {"_start_layer"}
