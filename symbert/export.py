"""Fold a trained model into a stock BERT: the same function, with weights that transformers loads without this code."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
)

from .attention import DotProduct
from .configuration_symbert import SymbertConfig
from .errors import SymbertError
from .modeling_symbert import (
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
    SymbertModel,
    SymbertPreTrainedModel,
)

BERT_CLASSES: dict[type[SymbertPreTrainedModel], type[PreTrainedModel]] = {
    SymbertModel: BertModel,
    SymbertForMaskedLM: BertForMaskedLM,
    SymbertForSequenceClassification: BertForSequenceClassification,
    SymbertForTokenClassification: BertForTokenClassification,
    SymbertForQuestionAnswering: BertForQuestionAnswering,
}
# Rounding gives about 1e-6 of the largest output, a wrong weight far more.
BOUND = 1e-3
SHARED_FIELDS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "max_position_embeddings",
    "initializer_range", "layer_norm_eps", "pad_token_id", "tie_word_embeddings", "id2label", "label2id",
    "problem_type",
)  # fmt: skip


def fold(model: SymbertPreTrainedModel) -> PreTrainedModel:
    """A stock BERT, with the same head and in the same dtype, whose outputs are those of `model` up to rounding.

    The operator's matrices, the scales and the logit gain are multiplied into query, key and value in float64 and
    then rounded once. Absent biases and token types become zeros. Raises SymbertError, saying which part stands in
    the way, for a model that no stock BERT can express.
    """
    _refuse_what_bert_lacks(model)
    weights = {}
    for name, weight in model.state_dict().items():
        if ".attention.self." not in name:
            weights[name.replace("symbert.", "bert.", 1) if name.startswith("symbert.") else name] = weight
    prefix = "" if isinstance(model, SymbertModel) else "bert."
    encoder = model if isinstance(model, SymbertModel) else model.symbert
    for index, layer in enumerate(encoder.encoder.layer):
        module = layer.attention.self
        query, key, value = module.folded()
        gain = model.config.attention_logit_gain
        for part, projection in (("query", query.scaled(gain)), ("key", key), ("value", value)):
            at = f"{prefix}encoder.layer.{index}.attention.self.{part}"
            weights[f"{at}.weight"] = projection.weight.to(model.dtype)
            weights[f"{at}.bias"] = projection.bias.to(model.dtype)
    with torch.random.fork_rng(devices=[]):  # its initialisation is overwritten, and must not move the caller's stream
        bert = _empty_bert(model)
    _fill_with_zeros(weights, bert)
    bert.load_state_dict(weights, strict=True)
    return bert.to(model.device).train(model.training)


def compare_with(model: SymbertPreTrainedModel, bert: PreTrainedModel, sequences: int = 4) -> float:
    """The largest difference of all their outputs on random tokens, a quarter of each row padding; see compare."""
    length = min(64, model.config.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (sequences, length), generator=generator).to(model.device)
    mask = torch.arange(length, device=model.device).expand(sequences, -1) < length - length // 4
    with torch.no_grad():
        ours, theirs = (one.eval()(ids, attention_mask=mask.long(), return_dict=False) for one in (model, bert))
    return compare(ours, theirs, mask)


def compare(expected: Sequence[Tensor], found: Sequence[Tensor], mask_BL: Tensor) -> float:
    """The largest difference of the outputs, in float32; those of single tokens count where `mask_BL` is true.

    Raises SymbertError if one is NaN, or above BOUND times the largest output (or 1, if that is more).
    """
    largest = 0.0
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        sizes, differences = one.float().abs(), (one.float() - other.float()).abs()
        if one.shape[:2] == mask_BL.shape:
            seen = mask_BL.reshape(*mask_BL.shape, *[1] * (one.dim() - 2))
            sizes, differences = sizes.where(seen, 0.0), differences.where(seen, 0.0)
        bound, difference = BOUND * max(1.0, sizes.max().item()), differences.max().item()
        if not difference <= bound:
            raise SymbertError(
                f"output {index} of the export differs from the checkpoint's by {difference:.1e} on random tokens; "
                f"expected at most {bound:.1e}"
            )
        largest = max(largest, difference)
    return largest


def _refuse_what_bert_lacks(model: SymbertPreTrainedModel) -> None:
    if type(model) not in BERT_CLASSES:
        raise SymbertError(f"stock BERT has no counterpart of {type(model).__name__}")
    config = model.config
    if config.norm_placement != "post":
        raise SymbertError(
            f"a model with `norm_placement` {config.norm_placement} cannot be folded: "
            "BERT normalises after each residual sum, and no weights can move a LayerNorm"
        )
    encoder = model if isinstance(model, SymbertModel) else model.symbert
    for index, layer in enumerate(encoder.encoder.layer):
        if not isinstance(layer.attention.self, DotProduct):
            raise SymbertError(
                f"layer {index} cannot be folded: its operator is {config.layer_operators[index]}, "
                "which is no dot product of a query and a key"
            )


def _empty_bert(model: SymbertPreTrainedModel) -> PreTrainedModel:
    config: SymbertConfig = model.config
    shared = {name: getattr(config, name) for name in SHARED_FIELDS}
    if isinstance(model, SymbertForQuestionAnswering):  # a start and an end, whatever labels a former head had
        shared |= {"id2label": None, "label2id": None}
    bert_config = BertConfig(**shared, type_vocab_size=max(config.type_vocab_size, 1))
    if config.trained_positions is not None:
        bert_config.trained_positions = config.trained_positions
    bert_class = BERT_CLASSES[type(model)]
    if isinstance(model, SymbertModel):
        return bert_class(bert_config, add_pooling_layer=model.pooler is not None).to(model.dtype)
    return bert_class(bert_config).to(model.dtype)


def _fill_with_zeros(weights: dict[str, Tensor], bert: PreTrainedModel) -> None:
    """Zeros for what BERT has and a model may lack: feed-forward biases and token types."""
    for name, weight in bert.state_dict().items():
        absent = name.endswith((".dense.bias", "token_type_embeddings.weight"))
        if absent and name not in weights:
            weights[name] = torch.zeros_like(weight)
