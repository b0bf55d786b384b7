"""``nn.MultiheadAttention`` with held probabilities, and a B-cos layer as its output projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_kernels.convert.rules import held


class MultiheadAttention:
    """Computes what ``nn.MultiheadAttention`` does, through its modules; queries and keys are held.

    The projection of queries, keys and values stays linear. Nested tensors are not taken.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    dropout: float
    batch_first: bool
    training: bool
    add_zero_attn: bool
    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor
    k_proj_weight: Tensor
    v_proj_weight: Tensor
    bias_k: Tensor | None
    bias_v: Tensor | None
    out_proj: nn.Linear

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention``: arguments, shapes and results."""
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a hint about attn_mask: give the mask too")
        single = query.ndim == 2
        if single:
            query, key, value = (t.unsqueeze(0 if self.batch_first else 1) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._project(query, key, value)  # [N, heads, L, head_dim]
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            weights = held.factor(lambda t: t, self._probabilities(q, k, mask))
            out = F.dropout(weights, dropout) @ v
        else:
            weights, out = None, held.attention(q, k, v, mask, dropout)
        result = self.out_proj(out.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not self.batch_first:
            result = result.transpose(0, 1)
        if single:
            result = result.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return result, weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        if self.in_proj_weight is None:
            matrices: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            matrices = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        rows = [F.linear(*each) for each in zip((query, key, value), matrices, biases, strict=True)]
        for i, token in ((1, self.bias_k), (2, self.bias_v)):
            if token is not None:
                rows[i] = torch.cat([rows[i], token.expand(len(rows[i]), -1, -1)], 1)
            if self.add_zero_attn:
                rows[i] = F.pad(rows[i], (0, 0, 0, 1))
        return [t.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for t in rows]

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """What is added to logits ``[N, heads, L, S]``; tokens that were added at the end are seen by all."""
        found = None
        for mask in (attn_mask, padding):
            if mask is None:
                continue
            added = mask
            if mask.dtype == torch.bool:
                added = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -torch.inf)
            if mask is padding:
                added = added[:, None, None]
            elif mask.ndim == 3:
                added = added.unflatten(0, (-1, self.num_heads))
            else:
                added = added[None, None]
            found = added.to(q.dtype) if found is None else found + added
        if found is None:
            return None
        return F.pad(found, (0, k.shape[2] - found.shape[-1]))

    def _probabilities(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        logits = q * self.head_dim**-0.5 @ k.transpose(-2, -1)
        return torch.softmax(logits if mask is None else logits + mask, -1)
