"""What the model is trained on: predict x_0, and let a token's contribution match its effect.

The second term (mathematics §6) is label-free. For one token i of a caption at the same x_t it asks

    W_i v_i  ≈  x̂(c) − x̂(c without i),

so that what a word is said to contribute is what would change if it were not there. Only the colour part
of the two is compared, (z_c − z_{c+3}) / 2: complementary channels sum to one with and without the word, so
no effect has any mass, and a tie of the mass would take all of it from the words (measured: 98% to 2–40%).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.denoiser import Conditioning
from bcos_diffusion.diffusion import add_noise, paired_noise
from bcos_diffusion.model import TextToImage
from bcos_diffusion.text import TextBatch
from bcos_kernels.mode import stacked


def drop_words(batch: TextBatch, caption_p: float, word_p: float, generator: torch.Generator) -> TextBatch:
    """Drop whole captions (for guidance) and single words (so that none is relied on when absent).

    caption_p, word_p: probabilities in [0, 1]. Returns a batch with the same ids and a smaller mask.
    """
    n, length = batch.mask.shape
    keep_caption = torch.rand(n, 1, generator=generator) >= caption_p
    keep_word = torch.rand(n, length, generator=generator) >= word_p
    keep_token = keep_word.gather(1, batch.word_index.clamp(min=0))
    return dataclasses.replace(batch, mask=batch.mask & keep_caption & keep_token)


def draw_timesteps(n: int, steps: int, generator: torch.Generator) -> Tensor:
    """``n`` integers below ``steps``: 40% of them uniform, the density of the others rising linearly with t.

    A shape is chosen while the picture is mostly noise, and learned there far more slowly than its details.
    """
    share = torch.rand(n, generator=generator)
    share = torch.where(torch.rand(n, generator=generator) < 0.4, share, share.sqrt())
    return (share * steps).long().clamp(max=steps - 1)


def denoising_loss(x_hat: Tensor, x_0: Tensor) -> Tensor:
    """Mean squared error over six channels, in fp32."""
    return F.mse_loss(x_hat.float(), x_0.float())


def effect_loss(
    model: TextToImage, x_t: Tensor, t: Tensor, batch: TextBatch, x_hat: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean squared gap between the colour of one random word's contribution and of the effect of dropping it.

    x_hat: ``[N, 6, H, W]``, the model's own prediction for ``batch`` at (x_t, t); used as a constant.
    """
    chosen = _one_word(batch, generator)  # [N, L]
    without = dataclasses.replace(batch, mask=batch.mask & ~chosen)
    with torch.no_grad():
        effect = x_hat.detach() - model(x_t, t, without)
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
    return F.mse_loss(colour_part(contribution).float(), colour_part(effect).float())


def colour_part(z: Tensor) -> Tensor:
    """Half the difference of complementary channels: ``[N, 6, H, W]`` to ``[N, 3, H, W]``."""
    return (z[:, :3] - z[:, 3:]) / 2


def _one_word(batch: TextBatch, generator: torch.Generator) -> Tensor:
    """Mark all tokens of one random content word per caption. Returns ``[N, L]`` bool."""
    carries = batch.mask & batch.value_mask
    score = torch.rand(carries.shape, generator=generator).to(carries.device).masked_fill(~carries, -1.0)
    word = batch.word_index.gather(1, score.argmax(1, keepdim=True))  # [N, 1]
    return carries & (batch.word_index == word)


def training_loss(
    model: TextToImage,
    x_0: Tensor,
    batch: TextBatch,
    alpha_bar: Tensor,
    generator: torch.Generator,
    effect_weight: float = 0.0,
    effect_fraction: float = 0.125,
) -> dict[str, Tensor]:
    """The losses of one step: ``total``, ``denoising`` and, with a positive weight, ``effect``.

    x_0: ``[N, 6, H, W]``; the effect term reads the first ``effect_fraction`` of the batch.
    """
    t = draw_timesteps(len(x_0), len(alpha_bar), generator).to(x_0.device)
    noise = paired_noise(x_0.shape, generator).to(x_0.device)
    x_t = add_noise(x_0, t, noise, alpha_bar)
    x_hat = model(x_t, t, batch)
    losses = {"denoising": denoising_loss(x_hat, x_0)}
    losses["total"] = losses["denoising"]
    if effect_weight > 0:
        rows = slice(0, max(1, round(effect_fraction * len(x_0))))
        losses["effect"] = effect_loss(model, x_t[rows], t[rows], batch[rows], x_hat[rows], generator)
        losses["total"] = losses["total"] + effect_weight * losses["effect"]
    return losses
