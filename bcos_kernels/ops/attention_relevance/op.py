"""What every token gives to the output of an attention whose probabilities are held, by blocks of probabilities.

With A the probabilities and g the cotangent of the output, token i of a head gives ``r_i = Σ_p A[p, i] ⟨g[p], v_i⟩``
(mathematics §3, "reduction for free"). The kernels hold a block of A at a time and never all of it.

Shapes and dtypes of every function here. q: ``[N, H, P, d]``; k: ``[N, H, S, d]``; v: ``[N, H, S, e]``; g:
``[N, H, P, e]``; all of one floating dtype, any strides. bias: broadcasts to ``[N, H, P, S]``; bool, True where a
token is visible, or floating, added to the logits; a row that sees no token has probabilities 0. scale: of the logits,
``1 / sqrt(d)`` where None. Relevance is in float64 for float64 and float32 otherwise. Where a gradient is asked for,
plain torch runs. ValueError on what does not fit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops.attention_relevance import cpu, reference, triton

BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "triton": triton, "reference": reference}


def attention_relevance(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Relevance of every token and head: ``r_i = Σ_p A[p, i] ⟨g[p], v_i⟩``, ``[N, H, S]``."""
    if torch.compiler.is_compiling():
        return torch.ops.bcos_kernels.attention_relevance(q, k, v, g, bias, scale)  # type: ignore[no-any-return]
    bias, scale = checked(q, k, v, g, bias, scale)
    with _no_autocast(q):
        return _backend(q, k, v, g, bias).tokens(q, k, v, g, bias, scale, False)[0]  # type: ignore[no-any-return]


def attention_backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Relevance ``[N, H, S]`` and, from the same pass, the gradient of the values ``Aᵀg``, of v's shape and dtype."""
    if torch.compiler.is_compiling():
        return torch.ops.bcos_kernels.attention_backward(q, k, v, g, bias, scale)  # type: ignore[no-any-return]
    bias, scale = checked(q, k, v, g, bias, scale)
    with _no_autocast(q):
        return _backend(q, k, v, g, bias).tokens(q, k, v, g, bias, scale, True)  # type: ignore[no-any-return]


def attention_relevance_maps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    sum_heads: bool = True,
) -> Tensor:
    """The same before the sum over pixels, ``A[p, i] ⟨g[p], v_i⟩``: ``[N, P, S]``, or ``[N, H, P, S]`` by head."""
    if torch.compiler.is_compiling():
        return torch.ops.bcos_kernels.attention_relevance_maps(q, k, v, g, bias, scale, sum_heads)  # type: ignore[no-any-return]
    bias, scale = checked(q, k, v, g, bias, scale)
    with _no_autocast(q):
        return _backend(q, k, v, g, bias).maps(q, k, v, g, bias, scale, sum_heads)  # type: ignore[no-any-return]


def _backend(*tensors: Tensor | None) -> ModuleType:
    given = [t for t in tensors if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return reference
    return BACKENDS[dispatch.choose(*given[:4], among=BACKENDS)]  # every backend reads a bias of any dtype


def _no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Products of probabilities stay in the accumulation type."""
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def checked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float | None
) -> tuple[Tensor | None, float]:
    """The bias in full shape, without memory of its own, and the scale."""
    named = {"q": q, "k": k, "v": v, "g": g}
    if any(t.ndim != 4 for t in named.values()):
        raise ValueError(f"q, k, v and g must be [N, H, rows, features], got {_shapes(named)}")
    (n, heads, pixels, d), (tokens, e) = q.shape, v.shape[2:]
    if k.shape != (n, heads, tokens, d) or v.shape[:2] != (n, heads) or g.shape != (n, heads, pixels, e):
        raise ValueError(
            f"q [N, H, P, d], k [N, H, S, d], v [N, H, S, e] and g [N, H, P, e] do not fit: {_shapes(named)}"
        )
    if not q.is_floating_point() or len({(t.dtype, t.device) for t in named.values()}) > 1:
        found = ", ".join(f"{name} {t.dtype} on {t.device}" for name, t in named.items())
        raise ValueError(f"q, k, v and g must have one real floating dtype and one device, got {found}")
    if bias is not None:
        if (bias.dtype != torch.bool and not bias.is_floating_point()) or bias.device != q.device:
            raise ValueError(f"bias must be bool or floating on {q.device}, got {bias.dtype} on {bias.device}")
        try:
            bias = bias.expand(n, heads, pixels, tokens)
        except RuntimeError:
            raise ValueError(
                f"bias {list(bias.shape)} does not broadcast to [N, H, P, S] = {[n, heads, pixels, tokens]}"
            ) from None
    return bias, max(d, 1) ** -0.5 if scale is None else scale


def _shapes(named: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(t.shape)}" for name, t in named.items())
