"""What the model is trained on: predict x_0 or the noise, and let a token's contribution match its effect.

The second term (mathematics §6) is label-free. For one token i of a caption at the same x_t it asks

    W_i v_i  ≈  x̂(c) − x̂(c without i),

so that what a word is said to contribute is what would change if it were not there. Only the colour part
of the two is compared, (z_c − z_{c+3}) / 2: complementary channels sum to one with and without the word, so
no effect has any mass, and a tie of the mass would take all of it from the words (measured: 98% to 2–40%).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_diffusion.diffusion import add_noise, noise_schedule
from bcos_diffusion.encoding import encode
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.text import TextBatch
from bcos_kernels.mode import stacked


def drop_words(batch: TextBatch, caption_p: float, word_p: float, caption: Tensor, words: Tensor) -> TextBatch:
    """Drop whole captions (for guidance) and single words (so that none is relied on when absent).

    caption_p, word_p: probabilities in [0, 1]; caption: ``[N]``, words: ``[N, L]``, uniform in [0, 1). Start, end
    and padding tokens go with their caption only. Returns a batch with the same ids and a smaller mask.
    """
    keep_caption = (caption >= caption_p)[:, None]
    keep_token = (words >= word_p).gather(1, batch.word_index.clamp(min=0)) | batch.special
    return dataclasses.replace(batch, mask=batch.mask & keep_caption & keep_token)


def draw_timesteps(uniform: Tensor, steps: int) -> Tensor:
    """Integers ``[N]`` below ``steps`` from ``uniform [N, 2]``: 40% uniform, the density of the others rising with t.

    A shape is chosen while the picture is mostly noise, and learned there far more slowly than its details.
    """
    share = torch.where(uniform[:, 0] < 0.4, uniform[:, 1], uniform[:, 1].sqrt())
    return (share * steps).long().clamp(max=steps - 1)


def denoising_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error ``[N]`` over six channels, in fp32; the target is x_0 or the zero-mean unit-variance noise."""
    return _squared_gap(predicted, target)


def effect_loss(
    model: TextToImage, x_t: Tensor, t: Tensor, batch: TextBatch, predicted: Tensor, score: Tensor
) -> Tensor:
    """Mean squared gap ``[N]`` between the colour of one word's contribution and of the effect of dropping it.

    predicted: ``[N, 6, H, W]``, the model's own prediction for ``batch`` at (x_t, t), of x_0 or of the noise, used as a
    constant; score: ``[N, L]``, of the tokens: the content word of the largest one is taken. Raises ValueError for a
    model whose layers have biases, of which no word contributes a part.
    """
    model.unet.check_explainable()
    chosen = _one_word(batch, score)  # [N, L]
    without = dataclasses.replace(batch, mask=batch.mask & ~chosen)
    with torch.no_grad():
        effect = predicted.detach() - model(x_t, t, without)
    text = model.condition(batch)
    alone = text.values * chosen[:, :, None].to(text.values.dtype)
    # Where time adds, the U-Net reads its tangent from the last part, so one more is needed.
    blanks = int(model.unet.time_adds)
    nothing = torch.zeros_like(x_t)
    with stacked(2 + blanks):
        values = torch.cat([text.values, alone] + [torch.zeros_like(alone)] * blanks)
        parts = Conditioning(values, text.keys, text.mask)
        stack = model.unet(torch.cat([x_t, nothing] + [nothing] * blanks), t, parts)
    contribution = stack[len(x_t) : 2 * len(x_t)]
    return _squared_gap(colour_part(contribution), colour_part(effect))


def colour_part(z: Tensor) -> Tensor:
    """Half the difference of complementary channels: ``[N, 6, H, W]`` to ``[N, 3, H, W]``."""
    return (z[:, :3] - z[:, 3:]) / 2


def _squared_gap(a: Tensor, b: Tensor) -> Tensor:
    return F.mse_loss(a.float(), b.float(), reduction="none").flatten(1).mean(1)


def _one_word(batch: TextBatch, score: Tensor) -> Tensor:
    """Mark all tokens of the content word with the largest score in each caption. Returns ``[N, L]`` bool."""
    carries = batch.mask & batch.value_mask
    word = batch.word_index.gather(1, score.masked_fill(~carries, -1.0).argmax(1, keepdim=True))  # [N, 1]
    return carries & (batch.word_index == word)


@dataclass(frozen=True)
class Portion:
    """What a process computes the loss of at once: some samples of a step, with all that was drawn for them.

    images: uint8 ``[N, 3, H, W]``; t: ``[N]``; noise: ``[N, 3, H, W]``; weights: ``[N]``, each sample's share of the
    step's loss; effect_rows: which samples the effect term reads, ``[M]``, with effect_scores ``[M, L]`` of their
    tokens and effect_weights ``[M]``. A weight of 0 belongs to a sample that only keeps processes in step.
    """

    images: Tensor
    text: TextBatch
    t: Tensor
    noise: Tensor
    weights: Tensor
    effect_rows: list[int]
    effect_scores: Tensor
    effect_weights: Tensor

    def to(self, device: torch.device) -> Portion:
        """The same portion on ``device``."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved: dict[str, Any] = {n: v.to(device) for n, v in values.items() if isinstance(v, (Tensor, TextBatch))}
        return dataclasses.replace(self, **moved)


class Objective(nn.Module):
    """Model and loss as one module, so that what wraps it (DDP, FSDP) sees a single forward pass."""

    alpha_bar: Tensor

    def __init__(self, model: TextToImage, effect_weight: float = 0.0):
        super().__init__()
        self.model = model
        self.effect_weight = effect_weight
        self.register_buffer("alpha_bar", noise_schedule(shift=model.unet.config.noise_shift), persistent=False)

    def forward(self, portion: Portion) -> dict[str, Tensor]:
        """The portion's part of the losses of a step: ``total``, ``denoising`` and, where it has a weight, ``effect``.

        The sum over the portions of a step is a mean over its samples, however it was divided.
        """
        model, text, t = self.model, portion.text, portion.t
        dtype = self.alpha_bar.dtype
        x_0 = encode(portion.images.to(dtype) / 255)
        noise = torch.cat([portion.noise, -portion.noise], dim=1).to(dtype)
        x_t = add_noise(x_0, t, noise, self.alpha_bar)
        predicted = model(x_t, t, text)
        target = x_0 if model.unet.predicts == "x_0" else noise
        denoising = (denoising_loss(predicted, target) * portion.weights).sum()
        if not self.effect_weight:
            return {"denoising": denoising, "total": denoising}
        effect = denoising.new_zeros(())
        if portion.effect_rows:
            rows = portion.effect_rows
            gaps = effect_loss(model, x_t[rows], t[rows], text[rows], predicted[rows], portion.effect_scores)
            effect = (gaps * portion.effect_weights).sum()
        return {"denoising": denoising, "effect": effect, "total": denoising + self.effect_weight * effect}
