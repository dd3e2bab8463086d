"""What makes pre-training fast on a CPU: dropout by bits, and memory that is not handed back.

PyTorch draws one bernoulli number after another, and asks the kernel for fresh pages for every tensor above 32 MiB. A
step of BERT-small (8 samples of 512, bf16, one thread) took 1.5 times as long with the first, 2.4 times with both.

Shape suffixes: B samples, H heads, L query position, M key position, K head size.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "dropout_by_bits"
RANDOM_BITS = 15
WIDTHS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def quicken(model: nn.Module) -> None:
    """Replace the model's dropout, also that within its attention, by dropout by bits. Its weights stay as they are."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, DropoutByBits(child.p))
    model.set_attn_implementation(ATTENTION)  # type: ignore[operator]


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep what is freed: fresh pages cost more than most element-wise kernels.

    An element-wise product of 33 MB took 47 ms, of which 8 ms were the product. Elsewhere than on glibc: nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def keep_mask(like: Tensor, probability: float) -> tuple[Tensor, float]:
    """All-ones words where an element is kept, zero where it is dropped, and the exact probability to be kept.

    One word of `like`'s width per element, from 15 random bits each: a probability of 0.1 becomes 3,277 / 32,768.
    Drawn from torch's generator, 64 bits at a time.
    """
    width = WIDTHS[like.element_size()]
    dropped = round(probability * 2**RANDOM_BITS)
    count = -(-like.numel() * like.element_size() // 8)
    words = torch.empty(count, dtype=torch.int64).random_().view(width)[: like.numel()].view(like.shape)
    # dropped - 1 - bits is negative exactly where bits >= dropped; the shift spreads its sign over the word.
    words.bitwise_and_(2**RANDOM_BITS - 1).neg_().add_(dropped - 1).bitwise_right_shift_(RANDOM_BITS)
    return words, 1 - dropped / 2**RANDOM_BITS


def masked(values: Tensor, words: Tensor) -> Tensor:
    """`values` where the words are all ones, +0 elsewhere; by bits, since a product with booleans converts them."""
    return values.view(words.dtype).bitwise_and(words).view(values.dtype)


class DropoutByBits(nn.Module):
    """nn.Dropout with another way to draw; the same distribution but for the rounding of the probability."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return values
        return _Dropout.apply(values, self.p)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, probability: float) -> Tensor:
        values = values.contiguous()
        words, kept = keep_mask(values, probability)
        ctx.save_for_backward(words)
        ctx.kept = kept
        return masked(values, words).div_(kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (words,) = ctx.saved_tensors
        return masked(gradient.contiguous(), words).div_(ctx.kept), None


class _Attention(torch.autograd.Function):
    """softmax(Q K^T), with dropout if there is any, times V; Q comes scaled."""

    @staticmethod
    def forward(ctx: Any, query_BHLK: Tensor, key_BHMK: Tensor, value_BHMK: Tensor, probability: float) -> Tensor:
        probabilities_BHLM = torch.matmul(query_BHLK, key_BHMK.transpose(2, 3)).softmax(-1)
        words_BHLM, kept = keep_mask(probabilities_BHLM, probability) if probability else (None, 1.0)
        ctx.save_for_backward(query_BHLK, key_BHMK, value_BHMK, probabilities_BHLM, words_BHLM)
        ctx.kept = kept
        return torch.matmul(_dropped(probabilities_BHLM, words_BHLM), value_BHMK).div_(kept)

    @staticmethod
    def backward(ctx: Any, gradient_BHLK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query_BHLK, key_BHMK, value_BHMK, probabilities_BHLM, words_BHLM = ctx.saved_tensors
        gradient_BHLK = gradient_BHLK / ctx.kept
        dropped_BHLM = _dropped(probabilities_BHLM, words_BHLM)
        value_gradient_BHMK = torch.matmul(dropped_BHLM.transpose(2, 3), gradient_BHLK)
        inner_BHLM = torch.matmul(gradient_BHLK, value_BHMK.transpose(2, 3))
        if words_BHLM is not None:
            inner_BHLM.view(words_BHLM.dtype).bitwise_and_(words_BHLM)
        scores_BHLM = torch._softmax_backward_data(inner_BHLM, probabilities_BHLM, -1, probabilities_BHLM.dtype)
        query_gradient_BHLK = torch.matmul(scores_BHLM, key_BHMK)
        key_gradient_BHMK = torch.matmul(scores_BHLM.transpose(2, 3), query_BHLK)
        return query_gradient_BHLK, key_gradient_BHMK, value_gradient_BHMK, None


def _dropped(values: Tensor, words: Tensor | None) -> Tensor:
    return values if words is None else masked(values, words)


def attention(
    module: nn.Module,
    query_BHLK: Tensor,
    key_BHMK: Tensor,
    value_BHMK: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """An attention kernel in transformers' signature: step by step in training, sdpa in evaluation or with a mask.

    Forward and backward pass of sdpa without dropout (bf16, one thread) took 3.8 times as long with 64 rows of 64 and
    4 heads of 32, and 1.3 times with 8 rows of 512 and 8 heads of 64.
    """
    compiled = torch.compiler.is_compiling() and not dropout  # the compiler cannot look into our own backward pass
    if attention_mask is not None or not torch.is_grad_enabled() or compiled:
        context_BHLK = nn.functional.scaled_dot_product_attention(
            query_BHLK, key_BHMK, value_BHMK, attention_mask, dropout if module.training else 0.0, scale=scaling
        )
    else:
        scale = query_BHLK.size(-1) ** -0.5 if scaling is None else scaling
        if torch.is_autocast_enabled("cpu"):  # which casts for sdpa by itself, but not within our own backward pass
            dtype = torch.get_autocast_dtype("cpu")
            query_BHLK, key_BHMK, value_BHMK = query_BHLK.to(dtype), key_BHMK.to(dtype), value_BHMK.to(dtype)
        context_BHLK = _Attention.apply(query_BHLK * scale, key_BHMK, value_BHMK, dropout)
    return context_BHLK.transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)
