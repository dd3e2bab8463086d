import json
import re
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


def test_an_unknown_field_of_a_saved_configuration_is_kept(tmp_path: Path) -> None:
    SymbertConfig().save_pretrained(tmp_path / "first")
    path = tmp_path / "first" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "rotary": True}), "utf-8")
    for config in (
        AutoConfig.from_pretrained(path.parent),
        SymbertConfig.from_json_file(path),
        AutoConfig.from_pretrained(path.parent, rotary=False),
    ):
        config.save_pretrained(tmp_path / "second")
        saved = json.loads((tmp_path / "second" / "config.json").read_text("utf-8"))
        assert saved.pop("rotary") is config.rotary
    assert not config.rotary
    with pytest.raises(SymbertError, match="`rotary` is not a field"):
        SymbertConfig(rotary=True)


@pytest.mark.parametrize(
    "name", ["use_return_dict", "layer_operators", "to_dict", "self", "__class__", "attribute_map"]
)
def test_a_saved_field_hides_nothing_that_a_configuration_computes(name: str, tmp_path: Path) -> None:
    SymbertConfig().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(fields | {name: 3}), "utf-8")
    found = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert found | {"_name_or_path": ""} == SymbertConfig().to_dict()


def test_whole_numbers_for_real_ones_become_real_ones() -> None:
    assert repr(SymbertConfig(layer_norm_eps=1).layer_norm_eps) == "1.0"


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
        ({"hidden_act": ["gelu"]}, "`['gelu']` is not an activation"),
        ({"norm_placement": ["post"]}, "`['post']` is not a `norm_placement`"),
        ({"attention_operator": 3}, "`attention_operator` is 3; expected a name, or a list of one name per layer"),
        ({"attention_operator": [["shared"]] * 12}, "`['shared']` is not an attention operator"),
        (
            {"attention_logit_gain": float("nan")},
            "`attention_logit_gain` is nan; expected a number from -3.4e+38 to 3.4",
        ),
        ({"attention_logit_gain": 1e39}, "`attention_logit_gain` is 1e+39; expected a number"),
        ({"initializer_range": float("inf")}, "`initializer_range` is inf; expected a number from 0 to 3.4e+38"),
        ({"initializer_range": None}, "`initializer_range` is None; expected a number"),
        ({"layer_norm_eps": "1e-12"}, "`layer_norm_eps` is '1e-12'; expected a number"),
        ({"vocab_size": True}, "`vocab_size` is True; expected an integer of at least 1"),
        ({"pad_token_id": True}, "`pad_token_id` is True; expected one of"),
        ({"layer_norm_eps": True}, "`layer_norm_eps` is True; expected a number"),
        ({"hidden_dropout_prob": 1.5}, "`hidden_dropout_prob` is 1.5; expected a number from 0 to 1"),
        ({"classifier_dropout": -0.1}, "`classifier_dropout` is -0.1; expected a number from 0 to 1"),
        ({"feed_forward_bias": "false"}, "`feed_forward_bias` is 'false'; expected true or false"),
        ({"tie_word_embeddings": 0}, "`tie_word_embeddings` is 0; expected true or false"),
        ({"trained_positions": "64"}, "`trained_positions` is '64'; expected an integer of at least 1"),
        ({"pad_token_id": 30522}, "`pad_token_id` is 30522; expected one of the 30522 tokens, or null"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SymbertError, match=re.escape(message)):
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
