import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, BertConfig

from symbert import SymbertConfig, SymbertError, SymbertModel


def hints(error: pytest.ExceptionInfo[SymbertError]) -> list[str]:
    return getattr(error.value, "__notes__", [])


def test_defaults_are_those_of_bert() -> None:
    ours, bert = SymbertConfig(), BertConfig()
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                 "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
                 "max_position_embeddings", "type_vocab_size", "initializer_range", "layer_norm_eps",
                 "pad_token_id", "tie_word_embeddings"):  # fmt: skip
        assert getattr(ours, name) == getattr(bert, name), name


def test_an_unknown_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SymbertError, match="`attention_operater` is not a field of SymbertConfig") as error:
        SymbertConfig(attention_operater="pairwise")
    assert hints(error) == ["did you mean `attention_operator`?"]


def test_an_unknown_field_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    SymbertConfig().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**fields, "rotary": True}), "utf-8")
    with pytest.raises(SymbertError, match="`rotary` is not a field"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "others",
    [
        {"num_labels": 5},
        {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}},
        {"output_hidden_states": True},
        {"dtype": "bfloat16"},
        {"attn_implementation": "eager"},
        {"_name_or_path": "somewhere"},
        {"problem_type": "regression", "num_labels": 1},
    ],
    ids=str,
)
def test_what_transformers_passes_through_a_configuration_is_accepted(others: dict[str, Any], tmp_path: Path) -> None:
    config = SymbertConfig(**others)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    ours, theirs = again.to_dict(), config.to_dict()
    for saved in (ours, theirs):
        saved.pop("_name_or_path", None)
        saved.pop("attn_implementation", None)
    assert ours == theirs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_operator": "parwise"}, "`parwise` is not an attention operator; expected one of original"),
        ({"attention_operator": ["original", "shard"]}, "`attention_operator` names 2 layers; expected 12"),
        ({"attention_operator": ["original"] * 11 + ["shard"]}, "`shard` is not an attention operator"),
        ({"pairwise_init": "ones"}, "`ones` is not a `pairwise_init`; expected one of normal, scaled, identity"),
        ({"num_attention_heads": 7}, "`hidden_size` is 768; expected a multiple of the 7 heads"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` is 0; expected an integer of at least 1"),
        ({"hidden_size": 768.5}, "`hidden_size` is 768.5; expected an integer of at least 1"),
        ({"type_vocab_size": -1}, "`type_vocab_size` is -1; expected an integer of at least 0"),
        ({"norm_placement": "pos"}, "`pos` is not a `norm_placement`; expected one of post, pre, sub"),
        ({"position_embedding": "rotary"}, "`rotary` is not a `position_embedding`; expected one of learned, sin"),
        ({"hidden_act": "gleu"}, "`gleu` is not an activation"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SymbertError, match=message):
        SymbertConfig(**fields)


def test_an_operator_set_afterwards_is_checked_when_the_model_is_built(config: Any) -> None:
    late = config()
    late.attention_operator = "symetric"
    with pytest.raises(SymbertError, match="`symetric` is not an attention operator") as error:
        SymbertModel(late)
    assert hints(error) == ["did you mean `symmetric`?"]


def test_a_comma_list_names_one_operator_per_layer(config: Any) -> None:
    assert config("original, pairwise").layer_operators == ["original", "pairwise"]
    assert config("shared").layer_operators == ["shared", "shared"]


def test_a_size_of_the_paper_takes_other_fields_too() -> None:
    config = SymbertConfig.of_size("small", vocab_size=100)
    shape = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.intermediate_size)
    assert (*shape, config.vocab_size) == (4, 8, 512, 2048, 100)
    with pytest.raises(SymbertError, match="`bse` is not a model size"):
        SymbertConfig.of_size("bse")
