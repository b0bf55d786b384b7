"""Attention whose probabilities explanation holds constant: queries and keys steer, values speak."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_kernels import dispatch
from bcos_kernels.listeners import ears
from bcos_kernels.mode import hold, is_explaining, slices
from bcos_kernels.modules.linear import BcosLinear
from bcos_kernels.ops.attention_relevance.held import attend
from bcos_kernels.sdpa import sdpa


class MultiHeadAttention(nn.Module):
    """Multi-head attention with B-cos value and output projections and no bias anywhere.

    Under explanation mode the output is linear in ``value_context`` alone. A token that ``key_mask``
    hides contributes exactly 0, and a row without any token gives exactly 0.

    value, out: other layers to project by, ``[..., context_dim]`` to ``[..., heads * head_dim]`` and that to
    ``[..., query_dim]``, such as those of an ordinary twin.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 8,
        head_dim: int = 64,
        b: float = 2,
        value: nn.Module | None = None,
        out: nn.Module | None = None,
    ):
        super().__init__()
        context_dim = query_dim if context_dim is None else context_dim
        self.heads, self.head_dim = heads, head_dim
        self.query = nn.Linear(query_dim, heads * head_dim, bias=False)
        self.key = nn.Linear(context_dim, heads * head_dim, bias=False)
        self.value: nn.Module = BcosLinear(context_dim, heads * head_dim, b=b) if value is None else value
        self.out: nn.Module = BcosLinear(heads * head_dim, query_dim, b=b) if out is None else out

    def forward(
        self,
        x: Tensor,
        key_context: Tensor | None = None,
        value_context: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from x to a context.

        x: ``[N, P, D]``, read for queries; key_context: ``[N, L, C]``, x by default; value_context:
        ``[S * N, L, C]``, key_context by default; key_mask: ``[N, L]`` bool, True where a token is
        visible. Only the first ``N`` rows of x and key_context are read in a stacked batch. Returns
        ``[S * N, P, D]``.
        """
        key_context = x if key_context is None else key_context
        value_context = key_context if value_context is None else value_context
        n = _check(x, key_context, value_context, key_mask)
        query = self._split(self.query(hold(x[:n])))
        key = self._split(self.key(hold(key_context[:n])))
        value = self.value(value_context).unflatten(0, (slices(), n))  # [S, N, L, heads * head_dim]
        visible = None
        if key_mask is not None:
            shown = key_mask[:n, None, None, :]  # [N, 1, 1, L]
            # Softmax over no token is NaN: let a row without any see all of them, whose values are zero.
            visible = shown | ~shown.any(-1, keepdim=True)
            value = value.masked_fill(~key_mask[:n, :, None], 0)
        value = value.unflatten(3, (self.heads, self.head_dim))
        return self.out(attend_by_head(self, query, key, value, self.head_dim**-0.5, visible))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)  # [N, heads, L, head_dim]


def attend_by_head(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, visible: Tensor | None = None
) -> Tensor:
    """The values that every pixel attends to, of all parts of a stacked batch: ``[S * N, P, heads * head_dim]``.

    query: ``[N, heads, P, head_dim]``; key: ``[N, heads, L, head_dim]``; value: ``[S, N, L, heads, head_dim]``;
    visible: broadcasts against ``[N, heads, P, L]``. Query and key are constants under explanation mode, whose
    backward pass finds the relevance of every token by head, for those who listen to the module.
    """
    value = value.permute(1, 3, 2, 0, 4)  # [N, heads, L, S, head_dim]

    def of_parts(parts: Tensor) -> Tensor:
        """Values ``[N, heads, L, S', head_dim]`` to ``[S', N, P, heads * head_dim]``: parts ride as channels."""
        out = _attend(module, hold(query), hold(key), parts.flatten(3), scale, visible)
        return out.unflatten(3, parts.shape[3:]).permute(3, 0, 2, 1, 4).flatten(3)

    out = of_parts(value[:, :, :, :1])
    if slices() > 1:  # apart, so that the first part is the same to the bit with and without the others
        out = torch.cat([out, of_parts(value[:, :, :, 1:])])
    return out.flatten(0, 1)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, visible: Tensor | None
) -> Tensor:
    heard = ears(module)
    followed = torch.is_grad_enabled() and (value.requires_grad or heard)
    if is_explaining() and followed and not dispatch.traces():
        return attend(query, key, value, visible, scale, heard)
    return sdpa(query, key, value, visible, scale)


def _check(x: Tensor, key_context: Tensor, value_context: Tensor, key_mask: Tensor | None) -> int:
    """Return N, the rows of the primal, or say which shape does not fit."""
    for name, tensor in (("x", x), ("key_context", key_context), ("value_context", value_context)):
        if tensor.ndim != 3:
            raise ValueError(f"{name} must be [N, L, C], got {list(tensor.shape)}")
    rows = value_context.shape[0]
    if rows % slices():
        raise ValueError(f"value_context has {rows} rows: a stacked batch of {slices()} parts needs a multiple of it")
    n, length = rows // slices(), value_context.shape[1]
    for name, tensor in (("x", x), ("key_context", key_context)):
        if tensor.shape[0] not in (n, rows):
            raise ValueError(f"{name} must have {n} or {rows} rows like value_context, got {tensor.shape[0]}")
    if key_context.shape[1] != length:
        raise ValueError(f"key_context and value_context differ in length: {key_context.shape[1]} and {length}")
    if key_mask is None:
        return n
    if key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be bool, True where a token is visible, got {key_mask.dtype}")
    if key_mask.shape[0] not in (n, rows) or key_mask.shape[1:] != (length,):
        raise ValueError(f"key_mask must be [{n}, {length}], got {list(key_mask.shape)}")
    return n
