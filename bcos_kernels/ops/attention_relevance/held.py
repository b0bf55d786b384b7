"""Attention as the linear map of its values that it is while explained; its backward pass yields the relevance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bcos_kernels.listeners import Ear
from bcos_kernels.ops.attention_relevance.op import attention_backward, attention_relevance, attention_relevance_maps
from bcos_kernels.sdpa import sdpa


class HeldAttention(torch.autograd.Function):
    """``A v`` for constant probabilities A: the output is that of :func:`sdpa`, to the bit.

    The backward pass holds a block of probabilities at a time. It gives the values' gradient and tells those who
    listen what each token gave by head; ``tokens`` are their leaves, which get no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, query: Tensor, key: Tensor, visible: Tensor | None, scale: float,
        ears: tuple[Ear, ...], *tokens: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(value, query, key, visible)
        ctx.scale, ctx.ears = scale, ears
        return sdpa(query, key, value, visible, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, query, key, visible = ctx.saved_tensors
        whole = query, key, value, grad, visible, ctx.scale
        if ctx.needs_input_grad[0]:
            relevance, grad_value = attention_backward(*whole)
        else:
            relevance, grad_value = attention_relevance(*whole), None
        for ear in ctx.ears:
            ear.hear(relevance, lambda: attention_relevance_maps(*whole))
        return grad_value, *[None] * (5 + len(ctx.ears))


def attend(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float, ears: tuple[Ear, ...]
) -> Tensor:
    """:class:`HeldAttention` for constants query ``[N, H, P, d]``, key ``[N, H, S, d]``, and value ``[N, H, S, e]``."""
    return HeldAttention.apply(value, query, key, visible, scale, ears, *[ear.token for ear in ears])  # type: ignore[no-any-return, no-untyped-call]
