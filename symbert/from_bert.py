"""Start a model from a pre-trained BERT: what has a counterpart is copied, what has none is approximated or left.

Shape suffixes: D hidden size, H head, K head size, X hidden size and 1 for the bias.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from .attention import DotProduct, Pairwise, Shared, Symmetric
from .checkpoint import (
    answer_plainly,
    check_config,
    load_checkpoint,
    read_config,
    refuse_misfits,
    refuse_non_finite,
    refuse_quantized,
    whole_weights,
)
from .errors import SymbertError
from .export import fold
from .modeling_symbert import SymbertPreTrainedModel

SAME_SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers", "vocab_size")


@dataclass(frozen=True)
class LayerStart:
    """How one layer was started.

    `error` is the root mean square of the scores' error relative to that of BERT's scores, over pairs of positions
    (see `start_from_bert`): 0 where the weights were copied, None where the layer stays random.
    """

    layer: int
    operator: str
    error: float | None


def is_stock_bert(folder: Path) -> bool:
    """Whether `folder` holds transformers' BERT."""
    return (folder / "config.json").is_file() and read_config(folder).get("model_type") == "bert"


def load_bert(folder: Path) -> PreTrainedModel:
    """The masked language model of a stock BERT folder, or of a checkpoint of this package that folds into one.

    Raises SymbertError, naming the folder, for anything else.
    """
    if not is_stock_bert(folder):
        return fold(load_checkpoint(folder))
    refuse_quantized(folder, read_config(folder))
    check_config(folder, BertConfig)
    with whole_weights(folder):
        bert, report = BertForMaskedLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    refuse_misfits(folder, report, ["mismatched_keys"])
    answer_plainly(bert)
    refuse_non_finite(folder, bert.named_parameters())
    return bert.eval()


@torch.no_grad()
def start_from_bert(model: SymbertPreTrainedModel, bert: PreTrainedModel) -> list[LayerStart]:
    """Copy the weights of `bert` into `model` in place, and return how each layer was started.

    A model of dot-product layers takes everything that has the same name and shape, so that `original` with BERT's
    parts *is* that BERT. A model with additive layers takes the self-attention layers alone and leaves the rest
    random, as in Srinivasagan & Ostermann (2024), section 4.

    `symmetric` and `pairwise` take BERT's query as their projection. Pairwise's matrix U of a head is the least
    squares solution of Q U Q^T = Q K^T: with W = [W | b] the head's projections of [x, 1] and C the second moment of
    [x, 1], U = W_k C W_q^T (W_q C W_q^T)^-1. C follows from the weights alone: the LayerNorm before the layer makes
    x = gamma * z + beta, and z is taken to be uncorrelated with variance 1. The error is taken over the same pairs.

    Raises SymbertError where the sizes differ, or for a layer whose operator cannot start so.
    """
    _refuse_other_sizes(model, bert)
    _refuse_shared(model)
    source = _renamed(bert)
    target = model.state_dict()
    hybrid = not all(isinstance(layer.attention.self, DotProduct) for layer in _layers(model))
    copied = [f"layer.{index}." for index, layer in enumerate(_layers(model)) if _is_dot_product(layer)]
    for name, weight in source.items():
        # The parameter names of a layer hold `.layer.N.`, no others do.
        wanted = not hybrid or any(part in name for part in copied)
        if wanted and name in target and target[name].shape == weight.shape:
            target[name].copy_(weight)
    return [_start_layer(index, layer, bert) for index, layer in enumerate(_layers(model))]


def _start_layer(index: int, layer: Any, bert: PreTrainedModel) -> LayerStart:
    module, theirs = layer.attention.self, _bert_body(bert).encoder.layer[index].attention.self
    operator = module.config.layer_operators[index]
    if not isinstance(module, DotProduct):
        return LayerStart(index, operator, None)
    if not isinstance(module, Pairwise | Symmetric):
        return LayerStart(index, operator, 0.0)
    query_HKX, key_HKX = (_augmented(part, module.num_heads) for part in (theirs.query, theirs.key))
    moment_XX = _input_second_moment(index, bert)
    gram_HKK = query_HKX @ moment_XX @ query_HKX.mT
    pairwise_HKK = torch.eye(module.head_size, dtype=torch.float64, device=gram_HKK.device).expand_as(gram_HKK)
    if isinstance(module, Pairwise):
        # U G = W_k C W_q^T with G symmetric.
        pairwise_HKK = torch.linalg.solve(gram_HKK, (key_HKX @ moment_XX @ query_HKX.mT).mT).mT
        module.pairwise.copy_(pairwise_HKK)
    missed_HKX = pairwise_HKK @ query_HKX - key_HKX

    def energy(form_HKX: Tensor) -> Tensor:
        """The expected square of q^T (form x) over independent pairs, summed over heads."""
        return (gram_HKK * (form_HKX @ moment_XX @ form_HKX.mT)).sum()

    return LayerStart(index, operator, float((energy(missed_HKX) / energy(key_HKX)).sqrt()))


def _augmented(layer: nn.Linear, num_heads: int) -> Tensor:
    """Weight and bias side by side, one block of rows per head, in float64."""
    return torch.cat([layer.weight, layer.bias[:, None]], 1).double().unflatten(0, (num_heads, -1))


def _input_second_moment(index: int, bert: PreTrainedModel) -> Tensor:
    """E[x x^T] of a layer's input with a 1 appended, from the LayerNorm that made it."""
    body = _bert_body(bert)
    before = body.embeddings.LayerNorm if index == 0 else body.encoder.layer[index - 1].output.LayerNorm
    mean_X = F.pad(before.bias.double(), (0, 1), value=1.0)
    variance_X = F.pad(before.weight.double() ** 2, (0, 1))
    return torch.diag(variance_X) + mean_X[:, None] * mean_X


def _refuse_other_sizes(model: SymbertPreTrainedModel, bert: PreTrainedModel) -> None:
    ours, theirs = model.config, bert.config
    other = [
        f"`{name}` is {getattr(theirs, name)} there and {getattr(ours, name)} here"
        for name in SAME_SIZES
        if getattr(ours, name) != getattr(theirs, name)
    ]
    here, there = ours.max_position_embeddings, theirs.max_position_embeddings
    if ours.position_embedding == "learned" and here != there:
        other.append(f"`max_position_embeddings` is {there} there and {here} here")
    if other:
        raise SymbertError(f"a model cannot start from a BERT of other sizes: {'; '.join(other)}")


def _refuse_shared(model: SymbertPreTrainedModel) -> None:
    for index, layer in enumerate(_layers(model)):
        if isinstance(layer.attention.self, Shared):
            raise SymbertError(
                f"layer {index}: `shared` cannot start from BERT, whose query, key and value are no rescaled copies "
                "of one projection"
            )


def _renamed(bert: PreTrainedModel) -> dict[str, Tensor]:
    return {
        f"symbert.{name.removeprefix('bert.')}" if name.startswith("bert.") else name: weight
        for name, weight in bert.state_dict().items()
    }


def _layers(model: SymbertPreTrainedModel) -> Any:
    body: Any = getattr(model, "symbert", model)
    return body.encoder.layer


def _bert_body(bert: PreTrainedModel) -> Any:
    body: Any = getattr(bert, "bert", bert)
    return body


def _is_dot_product(layer: Any) -> bool:
    return isinstance(layer.attention.self, DotProduct)
