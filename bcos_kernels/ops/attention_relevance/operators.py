"""``torch.ops.bcos_kernels.attention_relevance``, ``attention_backward`` and ``attention_relevance_maps``."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.attention_relevance import reference
from bcos_kernels.ops.attention_relevance.op import (
    attention_backward,
    attention_relevance,
    attention_relevance_maps,
    checked,
)
from bcos_kernels.ops.epilogue.layout import accumulator
from bcos_kernels.ops.library import differentiate, register

_ATTENTION = "Tensor q, Tensor k, Tensor v, Tensor g, Tensor? bias=None, float? scale=None"


def _relevance(v: Tensor) -> Tensor:
    return v.new_empty(v.shape[:3], dtype=accumulator(v))


def _map(q: Tensor, k: Tensor, sum_heads: bool) -> Tensor:
    heads = () if sum_heads else (q.shape[1],)
    return q.new_empty((q.shape[0], *heads, q.shape[2], k.shape[2]), dtype=accumulator(q))


def _truth(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    bias, scale = checked(q, k, v, g, bias, scale)
    return reference.tokens(q, k, v, g, bias, scale, False)[0]


def _truth_of_maps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    sum_heads: bool = True,
) -> Tensor:
    bias, scale = checked(q, k, v, g, bias, scale)
    return reference.maps(q, k, v, g, bias, scale, sum_heads)


_tokens = register(
    f"attention_relevance({_ATTENTION}) -> Tensor", attention_relevance, lambda q, k, v, *rest, **named: _relevance(v)
)
_maps = register(
    f"attention_relevance_maps({_ATTENTION}, bool sum_heads=True) -> Tensor",
    attention_relevance_maps,
    lambda q, k, v, g, bias=None, scale=None, sum_heads=True: _map(q, k, sum_heads),
)
register(
    f"attention_backward({_ATTENTION}) -> (Tensor, Tensor)",
    attention_backward,
    lambda q, k, v, *rest, **named: (_relevance(v), torch.empty_like(v, memory_format=torch.contiguous_format)),
)
differentiate(_tokens, _truth)
differentiate(_maps, _truth_of_maps)
