"""SymbertConfig: BERT's shape, and which attention operator each layer has."""

from dataclasses import field, fields
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .attention import find_operator
from .errors import SymbertError, unknown_field, unknown_name

PAIRWISE_INITS = ("normal", "scaled", "identity")
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

    Fields have BertConfig's names, meanings and defaults. Its own are `attention_operator`, one name for all layers
    or a list (or comma-separated string) with one name per layer; `pairwise_init`, what the pairwise operator's
    matrices start from (normal, scaled or identity); and `attention_logit_gain`, which multiplies every dot-product
    score: sqrt(head size) gives the original operator the scale that pairwise has at its first step.

    Raises SymbertError for an unknown field, operator or initialisation, and for sizes that do not fit together.
    transformers accepts unknown fields in silence; here a misspelt field would train another model.
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
    auto_map: dict[str, str] = field(default_factory=AUTO_MAP.copy)

    def __post_init__(self, **others: Any) -> None:
        _refuse_unknown(others, [one.name for one in fields(type(self))])
        super().__post_init__(**others)
        if isinstance(self.attention_operator, str) and "," in self.attention_operator:
            self.attention_operator = [name.strip() for name in self.attention_operator.split(",")]
        self._validate_sizes()
        if self.pairwise_init not in PAIRWISE_INITS:
            raise unknown_name("a `pairwise_init`", self.pairwise_init, list(PAIRWISE_INITS))
        if self.hidden_act not in ACT2FN:
            raise unknown_name("an activation", self.hidden_act, list(ACT2FN))
        for name in self.layer_operators:
            find_operator(name)

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
        if len(self.attention_operator) != self.num_hidden_layers:
            raise SymbertError(
                f"`attention_operator` names {len(self.attention_operator)} layers; "
                f"expected {self.num_hidden_layers}, one name per layer"
            )
        return list(self.attention_operator)

    def _validate_sizes(self) -> None:
        for name in (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SymbertError(f"`{name}` is {value!r}; expected a positive integer")
        if self.hidden_size % self.num_attention_heads:
            raise SymbertError(
                f"`hidden_size` is {self.hidden_size}; expected a multiple of the {self.num_attention_heads} heads"
            )


def _refuse_unknown(others: dict[str, Any], known: list[str]) -> None:
    default = PreTrainedConfig()
    for name in others:
        if not (name.startswith("_") or name in PASSED_BY_TRANSFORMERS or hasattr(default, name)):
            raise unknown_field(name, known)
