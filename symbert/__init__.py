"""BERT models that differ only in their attention operator, as transformers models.

Importing this package registers them with transformers' Auto classes: `AutoModelForMaskedLM.from_pretrained` then
needs no `trust_remote_code` for their checkpoints.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .attention import OPERATORS, DotProduct, SelfAttention
from .configuration_symbert import HYBRID_MODELS, PAIRWISE_INITS, SIZES, SymbertConfig
from .counts import count_flops, count_parameters
from .errors import SymbertError
from .modeling_symbert import (
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertModel,
    SymbertPreTrainedModel,
)

__all__ = [
    "HYBRID_MODELS",
    "OPERATORS",
    "PAIRWISE_INITS",
    "SIZES",
    "DotProduct",
    "SelfAttention",
    "SymbertConfig",
    "SymbertError",
    "SymbertForMaskedLM",
    "SymbertForQuestionAnswering",
    "SymbertForSequenceClassification",
    "SymbertForTokenClassification",
    "SymbertModel",
    "SymbertPreTrainedModel",
    "count_flops",
    "count_parameters",
]

AutoConfig.register("symbert", SymbertConfig)
SymbertConfig.register_for_auto_class()
for auto_class, model_class in (
    (AutoModel, SymbertModel),
    (AutoModelForMaskedLM, SymbertForMaskedLM),
    (AutoModelForSequenceClassification, SymbertForSequenceClassification),
    (AutoModelForTokenClassification, SymbertForTokenClassification),
    (AutoModelForQuestionAnswering, SymbertForQuestionAnswering),
):
    auto_class.register(SymbertConfig, model_class)
    model_class.register_for_auto_class(auto_class.__name__)
