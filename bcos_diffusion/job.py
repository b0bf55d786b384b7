"""Everything a sampler needs to draw some pictures, resolved and checked before any is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.diffusion import Guidance
from bcos_diffusion.explanation.trace import Source, signal_tokens
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.start import Start
from bcos_diffusion.text import TextBatch


@dataclass(frozen=True)
class Job:
    """N pictures to draw.

    batch: 2 N prompts, each with its counterpart beside it; text: the same as the denoiser reads them, the counterpart
    left out where guidance is 1; first: ``[N, 6, H, W]``, where sampling starts (x_T, or x_t of an image);
    alpha_bar: ``[t + 1]`` up to the timestep that it starts from; start: the image, where there is one.
    """

    batch: TextBatch
    text: Conditioning
    first: Tensor
    alpha_bar: Tensor
    steps: int
    guidance: Guidance
    update: str
    start: Start | None = None

    def __len__(self) -> int:
        return len(self.first)

    @property
    def rows(self) -> int:
        """1, or 2 where every prompt has its counterpart in guidance."""
        return len(self.text.keys) // len(self)

    @property
    def sources(self) -> list[tuple[Source, ...]]:
        """The tokens of each picture that carry a value."""
        return [signal_tokens(mask) for mask in self.text.mask.unflatten(0, (len(self), self.rows))]

    def prompts(self, number: int) -> TextBatch:
        """The prompt of one picture and its counterpart."""
        return self.batch[slice(2 * number, 2 * number + 2)]


def join(texts: list[Conditioning]) -> Conditioning:
    """Put prompts that were read one by one into one batch."""
    return Conditioning(*(torch.cat([getattr(text, name) for text in texts]) for name in ("values", "keys", "mask")))
