"""SymbertConfig: BERT's shape, the attention operator of each layer, and the parts around it."""

import inspect
from dataclasses import field, fields
from os import PathLike
from typing import Any

import transformers

LEAST_TRANSFORMERS = (5, 17)
# Before all else: older ones lack names that the imports below ask for.
if tuple(map(int, transformers.__version__.split(".")[:2])) < LEAST_TRANSFORMERS:
    raise ImportError(
        f"this model needs transformers {'.'.join(map(str, LEAST_TRANSFORMERS))} or newer, and this is "
        f"{transformers.__version__}: pip install --upgrade transformers"
    )

from transformers import PreTrainedConfig  # noqa: E402
from transformers.activations import ACT2FN  # noqa: E402

from .attention import find_operator  # noqa: E402
from .errors import SymbertError, unknown_field, unknown_name  # noqa: E402

PAIRWISE_INITS = ("normal", "scaled", "identity")
NORM_PLACEMENTS = ("post", "pre", "sub")
POSITION_EMBEDDINGS = ("learned", "sinusoidal")
# Courtois et al. (2024), section 4.1; base is bert-base-uncased.
SIZES: dict[str, dict[str, int]] = {
    "small": {
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "hidden_size": 512,
        "intermediate_size": 2048,
    },
    "base": {
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
    },
}
# Srinivasagan & Ostermann (2024), with the settings of the published models' cards (hub user gokuls). That v1 begins
# with additive attention, that the normalisation is Sub-LN, and that values are separate is our reading.
HYBRID: dict[str, Any] = {
    "type_vocab_size": 0, "position_embedding": "sinusoidal", "norm_placement": "sub", "hidden_act": "relu",
    "feed_forward_bias": False, "hidden_dropout_prob": 0.05, "attention_probs_dropout_prob": 0.05,
}  # fmt: skip
HYBRID_MODELS: dict[str, dict[str, Any]] = {
    "hbert-v1": {**HYBRID, "attention_operator": ["additive", "original"] * 6},
    "hbert-v2": {**HYBRID, "attention_operator": ["original"] * 2 + ["additive"] * 8 + ["original"] * 2},
    "addbert": {**HYBRID, "attention_operator": "additive"},
}
# The least and the most that a number may be; infinite where float32 ends.
RANGES = {
    "hidden_dropout_prob": (0.0, 1.0), "attention_probs_dropout_prob": (0.0, 1.0), "classifier_dropout": (0.0, 1.0),
    "initializer_range": (0.0, 3.4e38), "layer_norm_eps": (0.0, 3.4e38), "attention_logit_gain": (-3.4e38, 3.4e38),
}  # fmt: skip
# Written to config.json, so that every head of a checkpoint loads where this package is not installed.
AUTO_MAP = {
    "AutoConfig": "configuration_symbert.SymbertConfig",
    "AutoModel": "modeling_symbert.SymbertModel",
    "AutoModelForMaskedLM": "modeling_symbert.SymbertForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_symbert.SymbertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_symbert.SymbertForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_symbert.SymbertForQuestionAnswering",
}
# What transformers itself passes through a configuration although it is no field of one.
PASSED_BY_TRANSFORMERS = frozenset(
    {
        "architectures", "attn_implementation", "auto_map", "dtype", "experts_implementation", "model_type",
        "name_or_path", "torch_dtype", "transformers_version",
    }
)  # fmt: skip


class SymbertConfig(PreTrainedConfig):
    """The shape of a model and the attention operator of each of its layers.

    Fields have BertConfig's names, meanings and defaults. Its own are

    - `attention_operator`: one name for all layers, or a list (or comma-separated string) with one name per layer;
    - `pairwise_init`: what the pairwise operator's matrices start from (normal, scaled or identity);
    - `attention_logit_gain`: a factor of every attention score; sqrt(head size) gives the original operator the scale
      that pairwise has at its first step;
    - `norm_placement`: LayerNorm after each residual sum (post, as in BERT), before each sub-layer and once at the end
      (pre; Xiong et al., 2020), or before each sub-layer and before its output projection (sub; Wang et al., 2022);
    - `feed_forward_bias`: whether the two feed-forward projections have biases;
    - `position_embedding`: learned, or sinusoidal (fixed; Vaswani et al., 2017, section 3.5);
    - `trained_positions`: how many positions the samples of pre-training reached, where it is known;
    - `type_vocab_size` may be 0: no token type embeddings, and token types are ignored, as in DistilBERT.

    Raises SymbertError for an unknown field, operator or initialisation, and for sizes that do not fit together.
    transformers accepts unknown fields in silence; here a misspelt field would train another model. A saved
    configuration keeps them: transformers' Trainer and other programs write fields of their own into it.
    """

    model_type = "symbert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_operator: str | list[str] = "original"
    pairwise_init: str = "normal"
    attention_logit_gain: float = 1.0
    norm_placement: str = "post"
    feed_forward_bias: bool = True
    position_embedding: str = "learned"
    trained_positions: int | None = None
    auto_map: dict[str, str] = field(default_factory=AUTO_MAP.copy)

    def __post_init__(self, _saved: dict[str, Any] | None = None, **others: Any) -> None:
        for name in _foreign(others):
            raise unknown_field(name, [one.name for one in fields(type(self))])
        super().__post_init__(**others, **(_saved or {}))
        if isinstance(self.attention_operator, str) and "," in self.attention_operator:
            self.attention_operator = [name.strip() for name in self.attention_operator.split(",")]
        self._validate_sizes()
        self._validate_values()
        self._validate_names()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **others: Any) -> Any:
        """The configuration that was saved as `config_dict`, with the fields of other programs; see transformers."""
        known = [one.name for one in fields(cls)]
        kept = {name: value for name, value in config_dict.items() if name in known or not _is_taken(name)}
        saved = {name: kept.pop(name) for name in _foreign(kept) if name not in known}
        return super().from_dict({**kept, "_saved": saved}, **others)

    @classmethod
    def from_json_file(cls, json_file: str | PathLike[str]) -> "SymbertConfig":
        """The configuration saved in `json_file`; see from_dict."""
        config: SymbertConfig = cls.from_dict(cls._dict_from_json_file(json_file))
        return config

    @classmethod
    def of_size(cls, size: str, **others: Any) -> "SymbertConfig":
        """The configuration of a size of Courtois et al. (2024), `small` or `base`, with other fields as given."""
        if size not in SIZES:
            raise unknown_name("a model size", size, list(SIZES))
        return cls(**{**SIZES[size], **others})

    @property
    def layer_operators(self) -> list[str]:
        """The name of each layer's operator, from the first layer to the last."""
        if isinstance(self.attention_operator, str):
            return [self.attention_operator] * self.num_hidden_layers
        if not isinstance(self.attention_operator, list | tuple):
            raise SymbertError(
                f"`attention_operator` is {self.attention_operator!r}; expected a name, or a list of one name per layer"
            )
        if len(self.attention_operator) != self.num_hidden_layers:
            raise SymbertError(
                f"`attention_operator` names {len(self.attention_operator)} layers; "
                f"expected {self.num_hidden_layers}, one name per layer"
            )
        return list(self.attention_operator)

    def _validate_sizes(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size", "trained_positions",
        ):  # fmt: skip
            value, least = getattr(self, name), 0 if name == "type_vocab_size" else 1
            if value is None and name == "trained_positions":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SymbertError(f"`{name}` is {value!r}; expected an integer of at least {least}")
        if self.hidden_size % self.num_attention_heads:
            raise SymbertError(
                f"`hidden_size` is {self.hidden_size}; expected a multiple of the {self.num_attention_heads} heads"
            )

    def _validate_values(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is None and name == "classifier_dropout":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise SymbertError(f"`{name}` is {value!r}; expected a number from {least:g} to {most:g}")
            setattr(self, name, float(value))
        for name in ("tie_word_embeddings", "feed_forward_bias"):
            if not isinstance(getattr(self, name), bool):
                raise SymbertError(f"`{name}` is {getattr(self, name)!r}; expected true or false")
        pad = self.pad_token_id
        if pad is not None and (isinstance(pad, bool) or pad not in range(self.vocab_size)):
            raise SymbertError(f"`pad_token_id` is {pad!r}; expected one of the {self.vocab_size} tokens, or null")

    def _validate_names(self) -> None:
        for field_name, what, known in (
            ("pairwise_init", "a `pairwise_init`", PAIRWISE_INITS),
            ("norm_placement", "a `norm_placement`", NORM_PLACEMENTS),
            ("position_embedding", "a `position_embedding`", POSITION_EMBEDDINGS),
            ("hidden_act", "an activation", list(ACT2FN)),
        ):
            if getattr(self, field_name) not in list(known):
                raise unknown_name(what, str(getattr(self, field_name)), list(known))
        for name in self.layer_operators:
            find_operator(name)


def _foreign(others: dict[str, Any]) -> list[str]:
    """The names that no configuration of transformers has."""
    default = PreTrainedConfig()
    return [
        name
        for name in others
        if not (name.startswith("_") or name in PASSED_BY_TRANSFORMERS or hasattr(default, name))
    ]


def _is_taken(name: str) -> bool:
    """Whether a configuration has a method, a constant or a computed property of that name, which no value may hide."""
    if name == "self":
        return True
    if name == "model_type" or not hasattr(SymbertConfig, name):
        return False
    attribute = inspect.getattr_static(SymbertConfig, name)
    return not (isinstance(attribute, property) and attribute.fset)
