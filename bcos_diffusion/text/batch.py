"""Prompts as tokens: what every tokenizer gives and every text encoder reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor

START, END, PADDING = "[SOS]", "[EOS]", "[PAD]"
LAYOUT = frozenset({START, END, PADDING})
"""Words that are no part of a prompt but of the layout around it."""


@dataclass(frozen=True)
class TextBatch:
    """Tokenized prompts, padded to one length.

    ids: ``[N, L]`` long, 0 where padded; mask: ``[N, L]`` bool, True for tokens that may be read; value_mask:
    ``[N, L]`` bool, True for tokens of content words; word_index: ``[N, L]`` long, the word a token belongs
    to, -1 where there is nothing; words, texts: the words and the pieces of each prompt. Where the layout has start,
    end and padding tokens (``ClipTokenizer``), these are words too: START, END and PADDING.
    """

    ids: Tensor
    mask: Tensor
    value_mask: Tensor
    word_index: Tensor
    words: list[list[str]]
    texts: list[list[str]]

    def __getitem__(self, rows: slice | Sequence[int]) -> TextBatch:
        numbers = range(len(self.ids))[rows] if isinstance(rows, slice) else rows
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        taken = {n: v[list(numbers)] if isinstance(v, Tensor) else [v[i] for i in numbers] for n, v in values.items()}
        return dataclasses.replace(self, **cast(Any, taken))

    @property
    def special(self) -> Tensor:
        """Which tokens are no part of the prompt but of the layout around it: ``[N, L]`` bool."""
        found = torch.zeros_like(self.mask)
        for row, words in enumerate(self.words):
            for number, word in enumerate(words):
                if word in LAYOUT:
                    found[row] |= self.word_index[row] == number
        return found

    def to(self, device: torch.device | str) -> TextBatch:
        """The same batch with its tensors on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: v.to(device) for name, v in tensors.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **cast(Any, moved))

    @classmethod
    def concatenate(cls, batches: Sequence[TextBatch]) -> TextBatch:
        """Join batches of one length, in order."""
        joined: dict[str, Any] = {}
        for field in fields(cls):
            parts = [getattr(b, field.name) for b in batches]
            is_tensor = isinstance(parts[0], Tensor)
            joined[field.name] = torch.cat(parts) if is_tensor else [row for part in parts for row in part]
        return cls(**joined)
