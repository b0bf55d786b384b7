"""Attention relevance in pure torch, with all probabilities in memory: the truth, and differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue.reference import widen


def probabilities(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The softmax over tokens ``[..., P, S]`` in the accumulation type; 0 in a row that sees none."""
    logits = (widen(q) * scale) @ widen(k).transpose(-2, -1)
    if bias is None:
        return logits.softmax(-1)
    hides = bias.dtype == torch.bool
    logits = logits.masked_fill(~bias, -float("inf")) if hides else logits + bias.to(logits.dtype)
    return logits.softmax(-1).masked_fill((logits == -float("inf")).all(-1, keepdim=True), 0)


def tokens(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """``⟨v_i, (Aᵀg)_i⟩`` per head and token, and ``Aᵀg``."""
    grad_v = probabilities(q, k, bias, scale).transpose(-2, -1) @ widen(g)  # [N, H, S, e]
    return (grad_v * widen(v)).sum(-1), grad_v.to(v.dtype) if gradient else None


def maps(q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float, sum_heads: bool) -> Tensor:
    """``A[p, i] ⟨g[p], v_i⟩``."""
    parts = probabilities(q, k, bias, scale) * (widen(g) @ widen(v).transpose(-2, -1))  # [N, H, P, S]
    return parts.sum(1) if sum_heads else parts
