"""What BERT is made of around its attention: embeddings, sub-layers with their residuals, and the pooler.

Module names are those of transformers' BertModel, so that weights can be copied by name.

Shape suffixes: B batch, L position, D hidden size, F feed-forward size, P chosen position.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import find_operator
from .errors import SymbertError

if TYPE_CHECKING:
    from .configuration_symbert import SymbertConfig


def layer_norm(config: "SymbertConfig") -> nn.LayerNorm:
    """Normalisation over the hidden size."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def choose_positions(hidden_BLD: Tensor, positions_P: Tensor | None) -> Tensor:
    """The hidden states at flat positions (row * L + column) as (P, D); all of them, unchanged, if None."""
    return hidden_BLD if positions_P is None else hidden_BLD.flatten(0, 1).index_select(0, positions_P)


class Embeddings(nn.Module):
    """Sum of word, token type and position embeddings, normalised (Devlin et al., 2019, section 3)."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = layer_norm(config)
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
    """The end of a sub-layer: projection to the hidden size, dropout, residual, normalisation."""

    def __init__(self, config: "SymbertConfig", in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = layer_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(inner)) + residual)


class AttentionSublayer(nn.Module):
    """Self-attention by the layer's operator, with the residual around it."""

    def __init__(self, config: "SymbertConfig", layer_index: int) -> None:
        super().__init__()
        self.self = find_operator(config.layer_operators[layer_index])(config, layer_index)
        self.output = SublayerOutput(config, config.hidden_size)

    def forward(
        self,
        hidden_BLD: Tensor,
        attention_mask: Tensor | None = None,
        positions_P: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        context_BLD, probabilities = self.self(hidden_BLD, attention_mask, output_attentions)
        chosen = choose_positions(context_BLD, positions_P)
        return self.output(chosen, choose_positions(hidden_BLD, positions_P)), probabilities


class Intermediate(nn.Module):
    """The widening half of the feed-forward sub-layer."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.dense(hidden))


class Layer(GradientCheckpointingLayer):
    """Attention, then feed-forward; with `positions_P`, only those positions leave the attention."""

    def __init__(self, config: "SymbertConfig", layer_index: int) -> None:
        super().__init__()
        self.attention = AttentionSublayer(config, layer_index)
        self.intermediate = Intermediate(config)
        self.output = SublayerOutput(config, config.intermediate_size)

    def forward(
        self,
        hidden_BLD: Tensor,
        attention_mask: Tensor | None = None,
        positions_P: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        attended, probabilities = self.attention(hidden_BLD, attention_mask, positions_P, output_attentions)
        return self.output(self.intermediate(attended), attended), probabilities


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: "SymbertConfig") -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_BLD: Tensor,
        attention_mask: Tensor | None = None,
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
            state, layer_probabilities = layer(states[-1], attention_mask, positions, output_attentions)
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
        self.LayerNorm = layer_norm(config)

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
