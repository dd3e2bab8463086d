"""What BERT is made of around its attention: embeddings, sub-layers with their residuals, pooler, prediction head.

Module names are those of transformers' BertModel, so that weights can be copied by name. Where another model of the
family has or lacks a part, the place holds that part or an identity: one forward pass serves them all.

Shape suffixes: B batch, L position, D hidden size, P chosen position.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import NOTHING_HIDDEN, AttentionMask, find_operator
from .errors import SymbertError

if TYPE_CHECKING:
    from .configuration_symbert import SymbertConfig

# Where each norm placement normalises: before a sub-layer, before its output projection, after its residual sum,
# after the last layer.
BEFORE = frozenset({"pre", "sub"})
INNER = frozenset({"sub"})
AFTER = frozenset({"post"})
FINAL = frozenset({"pre"})


def norm(config: "SymbertConfig", placements: frozenset[str], features: int | None = None) -> nn.Module:
    """Normalisation over `features` (the hidden size if None) if the placement has one here, else an identity."""
    if config.norm_placement not in placements:
        return nn.Identity()
    return nn.LayerNorm(features or config.hidden_size, eps=config.layer_norm_eps)


def choose_positions(hidden_BLD: Tensor, positions_P: Tensor | None) -> Tensor:
    """The hidden states at flat positions (row * L + column) as (P, D); all of them, unchanged, if None."""
    return hidden_BLD if positions_P is None else hidden_BLD.flatten(0, 1).index_select(0, positions_P)


class SinusoidalPositions(nn.Embedding):
    """Fixed position embeddings: sin(l / 10000^(2i/D)) in column 2i, its cosine in 2i + 1 (Vaswani et al., 2017)."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.weight.requires_grad_(False)

    def train(self, mode: bool = True) -> "SinusoidalPositions":
        """Freeze again: `from_pretrained` leaves every parameter trainable, and calls `eval` (which is this) last."""
        self.weight.requires_grad_(False)
        return super().train(mode)

    def initialise(self) -> None:
        """Fill the table, unless a checkpoint has."""
        column = torch.arange(self.embedding_dim)
        wavelength = 10000.0 ** (column.div(2, rounding_mode="floor").double() * 2 / self.embedding_dim)
        angle = torch.arange(self.num_embeddings).double()[:, None] / wavelength
        init.copy_(self.weight, torch.where(column % 2 == 0, angle.sin(), angle.cos()))


class NoTokenTypes(nn.Module):
    """In the place of token type embeddings where a model has none."""

    def forward(self, token_type_ids_BL: Tensor) -> float:  # noqa: ARG002  the interface of an embedding
        return 0.0


POSITIONS: dict[str, type[nn.Embedding]] = {"learned": nn.Embedding, "sinusoidal": SinusoidalPositions}


class Embeddings(nn.Module):
    """Sum of word, token type and position embeddings, normalised (Devlin et al., 2019, section 3)."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = POSITIONS[config.position_embedding](config.max_position_embeddings, width)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else NoTokenTypes()
        )
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words_BLD: Tensor, token_type_ids_BL: Tensor | None, position_ids_BL: Tensor | None) -> Tensor:
        """Embed; token types default to 0, positions to 0, 1, 2, ..."""
        length, longest = words_BLD.shape[1], self.position_embeddings.num_embeddings
        if length > longest:
            raise SymbertError(f"the input has {length} tokens; expected at most {longest}")
        if position_ids_BL is None:
            position_ids_BL = torch.arange(length, device=words_BLD.device).unsqueeze(0)
        if token_type_ids_BL is None:
            token_type_ids_BL = torch.zeros_like(position_ids_BL)
        embedded_BLD = words_BLD + self.token_type_embeddings(token_type_ids_BL)
        return self.dropout(self.LayerNorm(embedded_BLD + self.position_embeddings(position_ids_BL)))


class SublayerOutput(nn.Module):
    """The end of a sub-layer: projection to the hidden size, dropout, residual, and the norms of its placement."""

    def __init__(self, config: "SymbertConfig", in_features: int, bias: bool = True) -> None:
        super().__init__()
        self.inner_LayerNorm = norm(config, INNER, in_features)
        self.dense = nn.Linear(in_features, config.hidden_size, bias=bias)
        self.LayerNorm = norm(config, AFTER)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(self.inner_LayerNorm(inner))) + residual)


class AttentionSublayer(nn.Module):
    """Self-attention by the layer's operator, with the residual around it."""

    def __init__(self, config: "SymbertConfig", layer_index: int) -> None:
        super().__init__()
        self.LayerNorm = norm(config, BEFORE)
        self.self = find_operator(config.layer_operators[layer_index])(config, layer_index)
        self.output = SublayerOutput(config, config.hidden_size)

    def forward(
        self,
        hidden_BLD: Tensor,
        mask: AttentionMask = NOTHING_HIDDEN,
        positions_P: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        context_BLD, probabilities = self.self(self.LayerNorm(hidden_BLD), mask, output_attentions)
        chosen = choose_positions(context_BLD, positions_P)
        return self.output(chosen, choose_positions(hidden_BLD, positions_P)), probabilities


class Intermediate(nn.Module):
    """The widening half of the feed-forward sub-layer."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.LayerNorm = norm(config, BEFORE)
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.feed_forward_bias)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.dense(self.LayerNorm(hidden)))


class Layer(GradientCheckpointingLayer):
    """Attention, then feed-forward; with `positions_P`, only those positions leave the attention."""

    def __init__(self, config: "SymbertConfig", layer_index: int) -> None:
        super().__init__()
        self.attention = AttentionSublayer(config, layer_index)
        self.intermediate = Intermediate(config)
        self.output = SublayerOutput(config, config.intermediate_size, bias=config.feed_forward_bias)

    def forward(
        self,
        hidden_BLD: Tensor,
        mask: AttentionMask = NOTHING_HIDDEN,
        positions_P: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        attended, probabilities = self.attention(hidden_BLD, mask, positions_P, output_attentions)
        return self.output(self.intermediate(attended), attended), probabilities


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_BLD: Tensor,
        mask: AttentionMask = NOTHING_HIDDEN,
        positions_P: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return the states before and after every layer, and every layer's probabilities (None if not asked for).

        With `positions_P` the last layer computes its output projection and feed-forward for those positions
        alone, and the last state is (P, D).
        """
        states, probabilities = [hidden_BLD], []
        for layer in self.layer:
            positions = positions_P if layer is self.layer[-1] else None
            state, layer_probabilities = layer(states[-1], mask, positions, output_attentions)
            states.append(state)
            probabilities.append(layer_probabilities)
        return states, probabilities


class Pooler(nn.Module):
    """tanh of a projection of the first token."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden_BLD[:, 0]))


class PredictionTransform(nn.Module):
    """Projection, activation and normalisation before the vocabulary."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden)))


class PredictionHead(nn.Module):
    """Logits over the vocabulary; the projection is the word embedding's, the bias its own."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.transform = PredictionTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden))


class MaskedLMHead(nn.Module):
    """Holds the prediction head under BERT's name for it, `cls.predictions`."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.predictions = PredictionHead(config)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.predictions(hidden)
