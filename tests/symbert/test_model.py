from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from symbert import (
    OPERATORS,
    SIZES,
    SymbertConfig,
    SymbertError,
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertModel,
    count_parameters,
)

HEADS = [
    (SymbertForMaskedLM, BertForMaskedLM),
    (SymbertForSequenceClassification, BertForSequenceClassification),
    (SymbertForTokenClassification, BertForTokenClassification),
    (SymbertForQuestionAnswering, BertForQuestionAnswering),
]


def bert_like(config: SymbertConfig) -> BertConfig:
    shared = set(BertConfig().to_dict()) & set(config.to_dict()) - {"model_type", "architectures", "auto_map"}
    return BertConfig(**{name: getattr(config, name) for name in shared}, num_labels=config.num_labels)


def inputs(config: SymbertConfig) -> dict[str, Tensor]:
    return {
        "input_ids": torch.randint(1, config.vocab_size, (2, 5)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "token_type_ids": torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 0, 0]]),
    }


@pytest.mark.parametrize(("ours", "theirs"), HEADS, ids=lambda head: head.__name__)
def test_original_with_copied_weights_equals_transformers_bert(config: Any, ours: Any, theirs: Any) -> None:
    labels = 2 if theirs is BertForQuestionAnswering else 3
    bert = theirs(bert_like(config(num_labels=labels))).eval()
    for parameter in bert.parameters():
        nn.init.normal_(parameter, std=0.3)
    model = ours(config(num_labels=labels)).eval()
    weights = {name.replace("bert.", "symbert.", 1): weight for name, weight in bert.state_dict().items()}
    model.load_state_dict(weights, strict=True)
    batch = inputs(model.config)
    expected, found = (one(**batch, output_hidden_states=True).to_tuple() for one in (bert, model))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.tensor([2, 0]), None),
        (torch.tensor([0.3, 4.0]), "regression"),
        (torch.tensor([[1.0, 0, 1], [0, 0, 1]]), "multi_label_classification"),
    ],
)
def test_the_classification_loss_equals_transformers(config: Any, labels: Tensor, problem: str | None) -> None:
    ours = config(num_labels=1 if problem == "regression" else 3, problem_type=problem)
    bert = BertForSequenceClassification(bert_like(ours)).eval()
    model = SymbertForSequenceClassification(ours).eval()
    model.load_state_dict({name.replace("bert.", "symbert.", 1): w for name, w in bert.state_dict().items()})
    batch = inputs(ours)
    torch.testing.assert_close(model(**batch, labels=labels).loss, bert(**batch, labels=labels).loss)


@pytest.mark.parametrize(
    ("size", "operator", "expected"),
    [
        ("small", "original", 28_795_194),
        ("small", "symmetric", 27_744_570),
        ("small", "pairwise", 27_875_642),
        ("small", "shared", 26_700_090),
        ("base", "original", 109_514_298),
        ("base", "symmetric", 102_427_194),
        ("base", "pairwise", 103_017_018),
        ("base", "shared", 95_367_738),
    ],
)
def test_parameter_counts_are_those_of_table_2(size: str, operator: str, expected: int) -> None:
    config = SymbertConfig.of_size(size, attention_operator=operator)
    assert count_parameters(config) == expected
    with torch.device("meta"):
        names = dict(SymbertForMaskedLM(config).named_parameters())
    assert sum(parameter.numel() for parameter in names.values()) == expected
    assert all(parameter.is_meta for parameter in names.values())


def test_the_original_sizes_count_as_many_as_transformers_bert() -> None:
    for size in SIZES:
        config = SymbertConfig.of_size(size)
        with torch.device("meta"):
            bert = BertForMaskedLM(bert_like(config))
        assert count_parameters(config) == sum(parameter.numel() for parameter in bert.parameters())


@pytest.mark.parametrize("operator", OPERATORS)
def test_sparse_prediction_equals_the_dense_form_in_logits_loss_and_gradients(config: Any, operator: str) -> None:
    model = SymbertForMaskedLM(config(operator)).double().eval()
    ids = torch.randint(1, 53, (3, 5))
    labels = torch.full((3, 5), -100)
    labels[0, 1], labels[0, 4], labels[2, 3] = 7, 11, 13
    positions = torch.tensor([14 - 1, 1, 4, 0, 0])  # not in order; the last two only fill the capacity
    dense = model(ids, labels=labels)
    dense.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    sparse = model(ids, masked_positions=positions, labels=torch.tensor([13, 7, 11, -100, -100]))
    sparse.loss.backward()
    torch.testing.assert_close(sparse.logits, dense.logits.flatten(0, 1)[positions])
    torch.testing.assert_close(sparse.loss, dense.loss)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


def test_sparse_prediction_projects_only_the_chosen_positions_in_the_last_layer(config: Any) -> None:
    model = SymbertForMaskedLM(config())
    rows = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, args, __: rows.update({name: args[0].shape[:-1].numel()}))

    for index, layer in enumerate(model.symbert.encoder.layer):
        watch(f"attention {index}", layer.attention.output.dense)
        watch(f"feed-forward {index}", layer.intermediate.dense)
    watch("head", model.cls.predictions.decoder)
    model(torch.randint(1, 53, (3, 5)), masked_positions=torch.tensor([2, 9, 0, 0]))
    assert rows == {"attention 0": 15, "feed-forward 0": 15, "attention 1": 4, "feed-forward 1": 4, "head": 4}


def test_the_losses_of_micro_batches_add_up_to_the_mean_over_all_masked_tokens(config: Any) -> None:
    model = SymbertForMaskedLM(config()).double().eval()
    ids, labels = torch.randint(1, 53, (4, 5)), torch.full((4, 5), -100)
    labels[0, 1], labels[1, 2], labels[1, 3], labels[3, 0] = 5, 6, 7, 8
    whole = model(ids, labels=labels).loss
    parts = [model(ids[rows], labels=labels[rows], num_items_in_batch=4).loss for rows in ([0], [1, 2], [3])]
    torch.testing.assert_close(sum(parts), whole)


def test_labels_of_another_shape_than_the_logits_are_refused(config: Any) -> None:
    model = SymbertForMaskedLM(config())
    ids = torch.randint(1, 53, (2, 5))
    with pytest.raises(SymbertError, match=r"`labels` has shape \(2, 5\); expected \(3,\)"):
        model(ids, labels=ids, masked_positions=torch.tensor([0, 1, 2]))


def test_an_input_longer_than_the_position_embeddings_is_refused(config: Any) -> None:
    with pytest.raises(SymbertError, match="has 20 tokens; expected at most 19"):
        SymbertModel(config())(torch.ones(1, 20, dtype=torch.long))


def test_ids_and_embeddings_exclude_each_other(config: Any) -> None:
    model = SymbertModel(config()).eval()
    ids = torch.randint(1, 53, (2, 5))
    embedded = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embedded)[0], model(ids)[0])
    for wrong in ({}, {"input_ids": ids, "inputs_embeds": embedded}):
        with pytest.raises(SymbertError, match="either `input_ids` or `inputs_embeds`"):
            model(**wrong)


def test_a_misspelt_argument_is_an_error(config: Any) -> None:
    with pytest.raises(TypeError, match="masked_position"):
        SymbertForMaskedLM(config())(torch.ones(1, 2, dtype=torch.long), masked_position=torch.tensor([0]))


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradient_checkpointing_changes_no_gradient(config: Any, operator: str) -> None:
    model = SymbertForMaskedLM(config(operator, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()
    ids = torch.randint(1, 53, (2, 5))
    model(ids, labels=ids).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    # transformers 5.23 renamed it, and warns about the name that 5.17 has alone.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


@pytest.mark.parametrize(
    "operator", [pytest.param(name, marks=[] if name == "pairwise" else pytest.mark.slow) for name in OPERATORS]
)
def test_sparse_prediction_compiles_to_one_graph(config: Any, operator: str) -> None:
    model = SymbertForMaskedLM(config(operator)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    ids, positions = torch.randint(1, 53, (2, 5)), torch.tensor([3, 8, 0])
    torch.testing.assert_close(
        compiled(ids, masked_positions=positions).logits, model(ids, masked_positions=positions).logits
    )


def test_the_decoder_is_tied_to_the_word_embeddings(config: Any) -> None:
    model = SymbertForMaskedLM(config())
    assert model.cls.predictions.decoder.weight is model.symbert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_each_layer_has_its_own_operator(config: Any) -> None:
    model = SymbertModel(config("pairwise, shared"))
    kinds = [type(layer.attention.self) for layer in model.encoder.layer]
    assert kinds == [OPERATORS["pairwise"], OPERATORS["shared"]]


def test_return_dict_false_gives_a_tuple(config: Any) -> None:
    found = SymbertForMaskedLM(config())(torch.ones(1, 2, dtype=torch.long), return_dict=False)
    assert isinstance(found, tuple)
    assert found[0].shape == (1, 2, 53)
