"""Self-attention whose compatibility function is one of several operators.

A dot-product operator turns hidden states into the query and key whose products score every pair of tokens, and into
the values. Everything after the scores is shared, so one fused kernel serves them all. They are exact
re-parametrisations of BERT's attention: a trained model of any of them folds into a stock BERT. Additive attention
scores single tokens, not pairs, and is another way for positions to exchange what they hold.

Shape suffixes: B batch, L query position, M key position, D hidden size, H head, K head size, P chosen position.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import SymbertError, unknown_name

if TYPE_CHECKING:
    from .configuration_symbert import SymbertConfig


def split_heads(hidden_BLD: Tensor, num_heads: int) -> Tensor:
    """(B, L, D) to (B, H, L, K) with D = H * K; a view, no copy."""
    batch, length, _ = hidden_BLD.shape
    return hidden_BLD.view(batch, length, num_heads, -1).transpose(1, 2)


def linear(config: "SymbertConfig") -> nn.Linear:
    """A projection over all heads at once, with BERT's bias."""
    return nn.Linear(config.hidden_size, config.hidden_size)


class AttentionMask(NamedTuple):
    """What may be seen: in the form of the kernel in use (see transformers.masking_utils), and as booleans (B, M)."""

    kernel: Tensor | None
    visible: Tensor | None


NOTHING_HIDDEN = AttentionMask(None, None)


class Projection(NamedTuple):
    """The weight (D, D) and bias (D) of a linear layer over all heads, in float64."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> "Projection":
        return cls(layer.weight.detach().double(), layer.bias.detach().double())

    def scaled(self, factor: Tensor | float) -> "Projection":
        """The projection followed by a product with a number, or with one number per output."""
        columns = torch.as_tensor(factor, dtype=torch.float64, device=self.weight.device)
        return Projection(self.weight * columns.reshape(-1, 1), self.bias * columns)


class SelfAttention(nn.Module, ABC):
    """One layer's exchange between positions: hidden states in, a context of the same shape out."""

    def __init__(self, config: "SymbertConfig", layer_index: int = 0) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_index
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scaling = config.attention_logit_gain * self.head_size**-0.5

    @abstractmethod
    def forward(
        self, hidden_BLD: Tensor, mask: AttentionMask = NOTHING_HIDDEN, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return context_BLD and, only if they are asked for, the probabilities_BHLM."""

    def initialise(self) -> None:
        """Initialise the parameters that no nn.Linear owns.

        Only functions of `transformers.initialization` will do: they leave alone what a checkpoint has filled.
        """


class DotProduct(SelfAttention):
    """Attention by dot products: softmax(gain * Q K^T / sqrt(K)) V for the Q, K and V of a subclass.

    The kernel is the one that the configuration names in transformers' attention interface, sdpa by default. The
    probabilities exist only in the eager kernel, which therefore serves whenever they are asked for.
    """

    # transformers' kernels take an attention without this attribute for a decoder's.
    is_causal = False

    @abstractmethod
    def project(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query_BHLK, key_BHLK and value_BHLK."""

    @abstractmethod
    def folded(self) -> tuple[Projection, Projection, Projection]:
        """The query, key and value projections with which BERT's own attention does the same, the gain left out."""

    def forward(
        self, hidden_BLD: Tensor, mask: AttentionMask = NOTHING_HIDDEN, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        kernel = eager_attention
        if not output_attentions:
            kernel = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        context_BLHK, probabilities_BHLM = kernel(
            self, *self.project(hidden_BLD), mask.kernel, dropout=dropout, scaling=self.scaling
        )
        return context_BLHK.flatten(2), probabilities_BHLM if output_attentions else None


class Original(DotProduct):
    """S = Q K^T / sqrt(K) with separate projections (Vaswani et al., 2017, eq. 1), as in BERT."""

    def __init__(self, config: "SymbertConfig", layer_index: int = 0) -> None:
        super().__init__(config, layer_index)
        self.query = linear(config)
        self.key = linear(config)
        self.value = linear(config)

    def folded(self) -> tuple[Projection, Projection, Projection]:
        return Projection.of(self.query), Projection.of(self.key), Projection.of(self.value)

    def project(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BHLK = split_heads(self.query(hidden_BLD), self.num_heads)
        key_BHLK = split_heads(self.key(hidden_BLD), self.num_heads)
        return query_BHLK, key_BHLK, split_heads(self.value(hidden_BLD), self.num_heads)


class Symmetric(DotProduct):
    """S = Q Q^T / sqrt(K): no key projection, so S equals its transpose (Courtois et al., 2024, Table 1)."""

    def __init__(self, config: "SymbertConfig", layer_index: int = 0) -> None:
        super().__init__(config, layer_index)
        self.query = linear(config)
        self.value = linear(config)

    def folded(self) -> tuple[Projection, Projection, Projection]:
        return Projection.of(self.query), Projection.of(self.query), Projection.of(self.value)

    def project(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BHLK = split_heads(self.query(hidden_BLD), self.num_heads)
        return query_BHLK, query_BHLK, split_heads(self.value(hidden_BLD), self.num_heads)


class Pairwise(DotProduct):
    """S = Q U Q^T / sqrt(K) with a free matrix U per head and layer (Courtois et al., 2024, Table 1).

    U is the parameter `pairwise` of shape (H, K, K); it has no bias and need not be symmetric. The kernel is given
    Q U as the query and Q as the key. `pairwise_init` names the distribution it starts from: `normal` is standard
    normal, as in the authors' code, which makes the first scores sqrt(K) times larger than BERT's; `scaled` divides
    by sqrt(K), which brings them back to BERT's scale; `identity` starts as the symmetric operator.
    """

    def __init__(self, config: "SymbertConfig", layer_index: int = 0) -> None:
        super().__init__(config, layer_index)
        self.query = linear(config)
        self.value = linear(config)
        self.pairwise = nn.Parameter(torch.empty(self.num_heads, self.head_size, self.head_size))

    def initialise(self) -> None:
        if self.config.pairwise_init == "identity":
            init.copy_(self.pairwise, torch.eye(self.head_size).expand_as(self.pairwise))
        else:
            std = 1.0 if self.config.pairwise_init == "normal" else self.head_size**-0.5
            init.normal_(self.pairwise, mean=0.0, std=std)

    def folded(self) -> tuple[Projection, Projection, Projection]:
        """With W_h, b_h the rows of head h in `query`, the query of BERT has U_h^T W_h and U_h^T b_h."""
        key = Projection.of(self.query)
        pairwise_HKJ = self.pairwise.detach().double()
        weight_HKD = key.weight.unflatten(0, (self.num_heads, self.head_size))
        bias_HK = key.bias.unflatten(0, (self.num_heads, self.head_size))
        weight = torch.einsum("hkj,hkd->hjd", pairwise_HKJ, weight_HKD).flatten(0, 1)
        bias = torch.einsum("hkj,hk->hj", pairwise_HKJ, bias_HK).flatten()
        return Projection(weight, bias), key, Projection.of(self.value)

    def project(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key_BHLK = split_heads(self.query(hidden_BLD), self.num_heads)
        # Contracting over the positions of the whole batch at once is one product per head, not one per sequence.
        query_BHLK = torch.einsum("bhlk,hkj->bhlj", key_BHLK, self.pairwise)
        return query_BHLK, key_BHLK, split_heads(self.value(hidden_BLD), self.num_heads)


class Shared(DotProduct):
    """Q, K and V are one projection, rescaled by three diagonals (Kowsher et al., 2024, section 3).

    S = x W + b, Q = S D_q, K = S D_k, V = S D_v; the diagonals `query_scale`, `key_scale` and `value_scale` are
    vectors of length D without bias. They start at ones, which the paper leaves open.
    """

    def __init__(self, config: "SymbertConfig", layer_index: int = 0) -> None:
        super().__init__(config, layer_index)
        self.shared = linear(config)
        self.query_scale = nn.Parameter(torch.empty(config.hidden_size))
        self.key_scale = nn.Parameter(torch.empty(config.hidden_size))
        self.value_scale = nn.Parameter(torch.empty(config.hidden_size))

    def initialise(self) -> None:
        for scale in (self.query_scale, self.key_scale, self.value_scale):
            init.ones_(scale)

    def folded(self) -> tuple[Projection, Projection, Projection]:
        shared = Projection.of(self.shared)
        scales = (self.query_scale, self.key_scale, self.value_scale)
        query, key, value = (shared.scaled(scale.detach()) for scale in scales)
        return query, key, value

    def project(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shared_BLD = self.shared(hidden_BLD)
        query_BHLK = split_heads(shared_BLD * self.query_scale, self.num_heads)
        key_BHLK = split_heads(shared_BLD * self.key_scale, self.num_heads)
        return query_BHLK, key_BHLK, split_heads(shared_BLD * self.value_scale, self.num_heads)


class Additive(SelfAttention):
    """Additive attention as in Fastformer (Wu et al., 2021, section 3.2), whose cost grows with L and not with L^2.

    alpha_i = softmax_i((W_a q_i + b_a) / sqrt(K)), one weight per head; global query = sum_i alpha_i q_i;
    p_i = global query * k_i; beta from p with W_b, b_b of its own; global key = sum_i beta_i p_i;
    u_i = global key * v_i; context_i = W_r u_i + b_r + q_i.

    Srinivasagan & Ostermann (2024) name additive attention and give no formula: that theirs is Fastformer's,
    with values of its own where Fastformer uses the queries again, is our reading. There are no probabilities of
    pairs to return, and no dropout on alpha and beta. Hidden positions are left out of both softmaxes.
    """

    def __init__(self, config: "SymbertConfig", layer_index: int = 0) -> None:
        super().__init__(config, layer_index)
        self.query = linear(config)
        self.key = linear(config)
        self.value = linear(config)
        self.query_score = nn.Linear(config.hidden_size, self.num_heads)
        self.key_score = nn.Linear(config.hidden_size, self.num_heads)
        self.transform = linear(config)

    def forward(
        self,
        hidden_BLD: Tensor,
        mask: AttentionMask = NOTHING_HIDDEN,
        output_attentions: bool = False,  # noqa: ARG002  there are none
    ) -> tuple[Tensor, Tensor | None]:
        if mask.kernel is not None and mask.visible is None:
            raise SymbertError("additive attention sees no pairs of tokens; expected an attention mask of shape (B, L)")
        query_BLD = self.query(hidden_BLD)
        global_query_B1D = self._pool(query_BLD, self.query_score(query_BLD), mask.visible)
        key_BLD = self.key(hidden_BLD) * global_query_B1D
        global_key_B1D = self._pool(key_BLD, self.key_score(key_BLD), mask.visible)
        return self.transform(self.value(hidden_BLD) * global_key_B1D) + query_BLD, None

    def _pool(self, states_BLD: Tensor, scores_BLH: Tensor, visible_BL: Tensor | None) -> Tensor:
        """The mean of the visible positions' states, weighted head by head with the softmax of their scores."""
        scores_BLH = scores_BLH * self.scaling
        if visible_BL is not None:
            scores_BLH = scores_BLH.masked_fill(~visible_BL[:, :, None], torch.finfo(scores_BLH.dtype).min)
        weights_BHL = scores_BLH.softmax(1).transpose(1, 2)
        pooled_BHK = (weights_BHL[:, :, None, :] @ split_heads(states_BLD, self.num_heads)).squeeze(2)
        return pooled_BHK.flatten(1)[:, None, :]


OPERATORS: dict[str, type[SelfAttention]] = {
    "original": Original,
    "symmetric": Symmetric,
    "pairwise": Pairwise,
    "shared": Shared,
    "additive": Additive,
}


def find_operator(name: str) -> type[SelfAttention]:
    """The class of the operator called `name`; SymbertError, with the nearest name as its hint, if there is none."""
    if name not in list(OPERATORS):
        raise unknown_name("an attention operator", str(name), list(OPERATORS))
    return OPERATORS[name]


def eager_attention(
    module: nn.Module,
    query_BHLK: Tensor,
    key_BHMK: Tensor,
    value_BHMK: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Softmax attention step by step, in transformers' kernel signature: context (B, L, H, K) and probabilities.

    The mask is boolean, true where a key may be seen, or a float to be added to the scores.
    """
    scale = query_BHLK.size(-1) ** -0.5 if scaling is None else scaling
    scores_BHLM = query_BHLK @ key_BHMK.transpose(2, 3) * scale
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores_BHLM = scores_BHLM.masked_fill(~attention_mask, torch.finfo(scores_BHLM.dtype).min)
    elif attention_mask is not None:
        scores_BHLM = scores_BHLM + attention_mask
    probabilities_BHLM = F.dropout(scores_BHLM.softmax(-1), dropout, module.training)
    return (probabilities_BHLM @ value_BHMK).transpose(1, 2), probabilities_BHLM
