"""Prompts as the U-Net reads them: values are each token's own embedding, keys are contextual."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_kernels.modules.norms import RMSNorm
from bcos_kernels.sdpa import sdpa


class SteeringBlock(nn.Module):
    """A pre-norm transformer block without biases. It feeds attention keys only, so it may mix tokens freely."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = RMSNorm(dim), RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.widen = nn.Linear(dim, 2 * dim, bias=False)
        self.narrow = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = sdpa(q, k, v, visible)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norm_2(x))))


class TextEncoder(nn.Module):
    """Learned embeddings of a compact vocabulary, once as values and once as contextual keys.

    values: whether there are values of their own; an ordinary network reads the contextual embeddings for both.
    """

    def __init__(self, vocab_size: int, dim: int, depth: int, heads: int, length: int, values: bool = True):
        super().__init__()
        self.value_table = nn.Embedding(vocab_size, dim) if values else None
        self.key_table = nn.Embedding(vocab_size, dim)
        self.positions = nn.Parameter(torch.randn(length, dim) * 0.5)
        self.blocks = nn.ModuleList(SteeringBlock(dim, heads) for _ in range(depth))
        self.norm = RMSNorm(dim)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the embeddings."""
        return self.key_table.weight.dtype

    def values(self, ids: Tensor) -> Tensor:
        """What each token says, unmixed: ``[N, L]`` ids to ``[N, L, D]``."""
        assert self.value_table is not None
        return self.value_table(ids)

    def keys(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Where tokens are to be heard: ``[N, L]`` ids and bool mask to ``[N, L, D]``, hidden tokens unread."""
        visible = mask[:, None, None, :] | ~mask.any(1)[:, None, None, None]
        x = self.key_table(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, visible)
        return self.norm(x)
