"""The words of one prompt: which tokens are theirs, and the same prompt with some of them hidden."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bcos_diffusion.text.batch import TextBatch


def word_positions(batch: TextBatch) -> Tensor:
    """The tokens of each word of one prompt: ``[words, L]`` bool. batch: one row."""
    numbers = torch.arange(len(batch.words[0]), device=batch.mask.device)
    return batch.mask & (batch.word_index == numbers[:, None])


def hide_words(batch: TextBatch, hidden: Tensor) -> TextBatch:
    """One row per row of ``hidden`` ``[M, words]`` bool, with those words hidden and all others in their places.

    batch: one row.
    """
    tokens = (hidden[:, :, None] & word_positions(batch)).any(1)  # [M, L]
    repeated = TextBatch.concatenate([batch] * len(hidden))
    return dataclasses.replace(repeated, mask=repeated.mask & ~tokens)
