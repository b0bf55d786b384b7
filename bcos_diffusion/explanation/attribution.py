"""The exact method: what B-cos networks say each word contributed, as one attribution among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.subject import one_step, whole_run
from bcos_diffusion.diffusion import predicted_x_0
from bcos_diffusion.explanation.reduction import REDUCTION, check_reduction
from bcos_diffusion.explanation.trace import Source, Trace
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.words import word_positions
from bcos_kernels.mode import stacked


@dataclass(frozen=True)
class Exact:
    """Contributions of words, W_i v_i, which with that of x_t sum to the image.

    reduction: from six channels to a pixel's value, as in :func:`pixel_values`. Scores do not depend on it
    (``Attributed.of_contributions``).
    """

    reduction: str = REDUCTION
    name: str = "exact"
    label: str = "B-cos contributions"

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """As :meth:`Attribution.denoise`, from one stacked pass and one without words."""
        image, contributions = contributions_of_words(pipeline, batch, x_t, t)
        null = one_step(pipeline, batch, x_t, t).null_image()
        return Attributed.of_contributions(contributions, image, null, self.reduction)

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """As :meth:`Attribution.draw`, from one stacked run over all pictures, and one of each without words."""
        found = []
        for number, traced in enumerate(pipeline.trace(job)):
            contributions = traced_words(traced, job.prompts(number)[:1])[:, None]
            null = whole_run(pipeline, job, number).null_image()
            found.append(Attributed.of_contributions(contributions, traced.image[None], null, self.reduction))
        return found


def traced_words(traced: Trace, batch: TextBatch) -> Tensor:
    """What each word of a prompt contributed to a traced image: ``[words, 6, H, W]``. batch: the prompt, one row."""
    return sum_by_word(traced.sources, traced.tokens, batch)


def sum_by_word(sources: Sequence[Source], parts: Tensor, batch: TextBatch) -> Tensor:
    """The parts of a prompt's tokens ``[n, 6, H, W]`` as parts of its words, ``[words, 6, H, W]``.

    sources: the tokens, of which those of the prompt's counterpart are left out; batch: the prompt in its first row.
    """
    found = parts.new_zeros(len(batch.words[0]), *parts.shape[1:])
    for source, part in zip(sources, parts, strict=True):
        if source.row == 0:
            found[batch.word_index[0, source.position]] += part
    return found


@torch.no_grad()
def contributions_of_words(
    pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Predict x_0 for one prompt at several (x_t, t), with what each word contributed to it.

    batch: one row; x_t: ``[N, 6, H, W]``; t: ``[N]``. Returns ``[N, 6, H, W]`` and ``[words, N, 6, H, W]``. Raises
    ValueError for a network of which words contribute no part.
    """
    unet, text = pipeline.model.unet, pipeline.model.condition(batch)
    unet.check_explainable()
    positions = word_positions(batch)
    speaking = (positions & text.mask).any(1).nonzero().flatten()
    alone = text.values * positions[speaking][:, :, None].to(text.values.dtype)  # [speaking, L, D]
    # In the "additive" form the U-Net reads the tangent of time from the last part, which no word may be.
    blanks = int(unet.time_adds)
    parts, n = 1 + len(speaking) + blanks, len(x_t)
    nothing = torch.zeros_like(text.values).expand(blanks, -1, -1)
    values = torch.cat([text.values, alone, nothing]).repeat_interleave(n, 0)  # [parts * N, L, D]
    state = x_t.new_zeros(parts, *x_t.shape)
    state[0] = x_t
    with stacked(parts):
        out = unet(state.flatten(0, 1), t, Conditioning(values, text.keys.expand(n, -1, -1), text.mask.expand(n, -1)))
    # What the standard update adds belongs to the image alone.
    constant = x_t.new_zeros(parts, 1, 1, 1, 1)
    constant[0] = 1
    alpha_bar = pipeline.alpha_bar.to(x_t)[t][:, None, None, None]
    out = predicted_x_0(
        out.unflatten(0, (parts, n)), state, alpha_bar, unet.predicts, pipeline.defaults.update, constant
    )
    contributions = out.new_zeros(len(positions), *out.shape[1:])
    contributions[speaking] = out[1 : 1 + len(speaking)]
    return out[0], contributions
