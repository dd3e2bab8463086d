"""What the attention of a trained model looks like: how symmetric its weights, how sharp and how symmetric its maps.

Shape suffixes: L query position, M key position, D hidden size, H head, K head size, R rows of one or all heads.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .attention import DotProduct, Pairwise
from .checkpoint import load_checkpoint
from .configuration_symbert import SymbertConfig
from .export import SHARED_FIELDS
from .from_bert import is_stock_bert, load_bert, start_from_bert
from .modeling_symbert import SymbertForMaskedLM, SymbertModel, SymbertPreTrainedModel

MAP_FACTS = ("entropy", "asymmetry")


def load_encoder(folder: Path) -> SymbertModel:
    """The encoder of a checkpoint, or of a stock BERT folder as a model of `original` operators."""
    if is_stock_bert(folder):
        return from_stock_bert(load_bert(folder)).symbert
    model = load_checkpoint(folder)
    return model if isinstance(model, SymbertModel) else model.symbert


def from_stock_bert(bert: PreTrainedModel) -> SymbertForMaskedLM:
    """The same masked language model as a model of this package."""
    fields = {name: getattr(bert.config, name) for name in SHARED_FIELDS}
    with torch.random.fork_rng(devices=[]):
        model = SymbertForMaskedLM(SymbertConfig(**fields, type_vocab_size=bert.config.type_vocab_size))
    start_from_bert(model, bert)
    return model.eval()


def symmetry_score(query_RD: Tensor, key_RD: Tensor) -> Tensor:
    """s(M) = tr(M M) / ||M||_F^2 in [-1, 1] of M = W_q^T W_k (Saponati et al., 2025, section 3).

    1 if M is symmetric, -1 if it is antisymmetric, near 0 if it is random. Works on R x R matrices, never D x D:
    tr(M M) = tr(P P) with P = W_k W_q^T. The biases have no part in it. Leading dimensions are those of the result,
    which stays on the device.
    """
    crossed_RR = key_RD @ query_RD.mT
    norm = ((query_RD @ query_RD.mT) * (key_RD @ key_RD.mT)).sum((-2, -1))
    return (crossed_RR * crossed_RR.mT).sum((-2, -1)) / norm


@torch.no_grad()
def symmetry_scores(model: SymbertModel) -> list[float | None]:
    """The symmetry score of every layer; None for one that is no dot product. Waits for the device once."""
    layers: Any = model.encoder.layer
    projections = [
        layer.attention.self.folded()[:2] for layer in layers if isinstance(layer.attention.self, DotProduct)
    ]
    scores = [symmetry_score(query.weight, key.weight) for query, key in projections]
    values = iter(torch.stack(scores).tolist() if scores else [])
    return [next(values) if isinstance(layer.attention.self, DotProduct) else None for layer in layers]


@torch.no_grad()
def weight_facts(model: SymbertModel) -> list[dict[str, Any]]:
    """For every layer its operator, symmetry score and heads; for every head of a dot-product layer

    - `symmetry`: the symmetry score of that head alone;
    - `singular_values` of U, in falling order, and `distance_from_identity` ||U - I||_F / ||I||_F (pairwise only).
    """
    layers: Any = model.encoder.layer
    scores = symmetry_scores(model)
    return [
        {
            "layer": index,
            "operator": model.config.layer_operators[index],
            "symmetry": score,
            "heads": _head_facts(layer.attention.self),
        }
        for index, (layer, score) in enumerate(zip(layers, scores, strict=True))
    ]


def _head_facts(module: Any) -> list[dict[str, Any]]:
    if not isinstance(module, DotProduct):
        return []
    query_HKD, key_HKD = (part.weight.unflatten(0, (module.num_heads, -1)) for part in module.folded()[:2])
    columns: dict[str, Tensor] = {"symmetry": symmetry_score(query_HKD, key_HKD)}
    if isinstance(module, Pairwise):
        matrix_HKK = module.pairwise.double()
        identity_KK = torch.eye(module.head_size, dtype=torch.float64, device=matrix_HKK.device)
        columns["singular_values"] = torch.linalg.svdvals(matrix_HKK)
        columns["distance_from_identity"] = (matrix_HKK - identity_KK).norm(dim=(1, 2)) / identity_KK.norm()
    values = {name: column.tolist() for name, column in columns.items()}
    return [
        {"head": head, **{name: of_heads[head] for name, of_heads in values.items()}}
        for head in range(module.num_heads)
    ]


@torch.no_grad()
def attention_facts(model: SymbertPreTrainedModel, sequences: Iterable[list[int]]) -> list[dict[str, list[float]]]:
    """For every layer the means over `sequences` of each head's `entropy` and `asymmetry`; empty for additive layers.

    The entropy of a query's probabilities is in nats, averaged over the positions of a sequence; the asymmetry of a
    map A (L x L) is ||A - A^T||_F / ||A||_F, 0 if symmetric, at most sqrt(2).
    """
    collected: list[list[Tensor]] = []
    for ids in sequences:
        attentions = model(torch.tensor([ids], device=model.device), output_attentions=True).attentions
        collected = collected or [[] for _ in attentions]
        for found, probabilities in zip(collected, attentions, strict=True):
            if probabilities is not None:
                maps_HLM = probabilities[0].double()
                entropy_H = torch.special.entr(maps_HLM).sum(-1).mean(-1)
                asymmetry_H = (maps_HLM - maps_HLM.mT).norm(dim=(1, 2)) / maps_HLM.norm(dim=(1, 2))
                found.append(torch.stack([entropy_H, asymmetry_H]))
    means = [torch.stack(found).mean(0) for found in collected if found]
    values = iter(torch.stack(means).tolist() if means else [])  # the one time that the device is waited for
    return [dict(zip(MAP_FACTS, next(values) if found else ([], []), strict=True)) for found in collected]


def analyse(model: SymbertModel, sequences: list[list[int]]) -> dict[str, Any]:
    """`weight_facts` and, if there are sequences of token ids, `attention_facts`, head by head and as means."""
    layers = weight_facts(model)
    for layer, facts in zip(layers, attention_facts(model, sequences), strict=bool(sequences)):
        for head, entropy, asymmetry in zip(layer["heads"], facts["entropy"], facts["asymmetry"], strict=True):
            head.update(entropy=entropy, asymmetry=asymmetry)
    heads = [head for layer in layers for head in layer["heads"]]
    means = {
        name: fmean(head[name] for head in heads if name in head)
        for name in ("symmetry", "distance_from_identity", "entropy", "asymmetry")
        if any(name in head for head in heads)
    }
    tokens = sum(len(ids) for ids in sequences)
    return {"layers": layers, "means": means, "text": {"sequences": len(sequences), "tokens": tokens}}
