"""What drives a latent, exactly: every word and every pixel of x_t, by one backward pass.

Features f of a layer of a B-cos network are the sum of what words, x_t and, where it adds, time gave to them. So is
what the encoder of a dictionary makes of them, before its TopK:

    z_j = e_j · (read(f) - b_pre) + b_j = Σ_words + Σ_pixels + time + (b_j - e_j · b_pre)

where read(f) is the mean over positions, or f at one position for a spatial code. The vector-Jacobian product of the
network with all factors held and e_j at the layer is the part of each; nothing is estimated and nothing is left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.features.latents.step import Dictionary, Step, by_position, hooked, read_at, time_features
from bcos_kernels.mode import explanation_mode


@dataclass(frozen=True, eq=False)
class LatentAttribution:
    """What drives J latents at one step. All float64, in the units of the latents' activation.

    latents: ``[J]`` int64; activation: ``[J]``, z before ReLU and TopK, computed forward; tokens: ``[J, L]``; words:
    ``[J, words]``, the sum of each word's tokens; x_t: ``[J, 6, H, W]``, what each channel of each pixel adds; time:
    ``[J]``, 0 where time does not add; constant: ``[J]``, b_j - e_j · b_pre, the dictionary's own.
    """

    latents: Tensor
    activation: Tensor
    tokens: Tensor
    words: Tensor
    x_t: Tensor
    time: Tensor
    constant: Tensor

    @property
    def pixels(self) -> Tensor:
        """What each pixel of x_t adds, its channels together: ``[J, H, W]``."""
        return self.x_t.sum(1)

    @property
    def total(self) -> Tensor:
        """The sum of all parts ``[J]``, which completeness says is the activation."""
        return self.tokens.sum(1) + self.x_t.sum((1, 2, 3)) + self.time + self.constant

    @property
    def completeness(self) -> float:
        """Relative error of activation = sum of parts, over all J latents (L2); 0 when it is complete."""
        missing = float((self.activation - self.total).norm())
        return missing / float(self.activation.norm()) if missing else 0.0


def attribute(
    step: Step, dictionary: Dictionary, latents: Sequence[int], position: int | None = None
) -> LatentAttribution:
    """Attribute latents at a step: one pass forward, and one back a latent.

    position: of a spatial code, row-major; None for a pooled one. Raises ValueError for latents or a position that are
    not there, and for a dictionary of another width.
    """
    rows, biases = encoder_rows(dictionary, latents, step.x_t)
    x_t = step.x_t[None].detach().clone().requires_grad_()
    values = step.text.values.detach().clone().requires_grad_()
    found: list[Tensor] = []
    with torch.enable_grad(), explanation_mode(), hooked(step.layer, lambda output: found.append(output)):
        step.predict(x_t, values)
    with torch.enable_grad():
        read = read_at(by_position(found[0])[0], position)
    check_width(dictionary, read.shape[-1])
    gradients = [torch.autograd.grad(read, [x_t, values], row, True, materialize_grads=True) for row in rows]
    by_pixel = torch.cat([g.double() for g, _ in gradients]) * step.x_t.double()
    tokens = (torch.cat([g.double() for _, g in gradients]) * step.text.values.double()).sum(-1)
    time = torch.zeros_like(biases)
    if step.unet.time_adds:
        time = rows.double() @ read_at(time_features(step), position).double()
    constant = biases - rows.double() @ dictionary.pre_bias.detach().to(rows).double()
    activation = rows.double() @ read.detach().double() + constant
    return LatentAttribution(
        torch.tensor(list(latents)), activation, tokens, by_word(tokens, step), by_pixel, time, constant
    )


def encoder_rows(dictionary: Dictionary, latents: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's rows ``[J, D]``, in the type and place of ``like``, and its biases ``[J]`` in float64."""
    chosen = check_latents(dictionary, latents)
    rows = dictionary.encoder.detach()[chosen].to(like)
    return rows, dictionary.encoder_bias.detach()[chosen].to(like).double()


def check_latents(dictionary: Dictionary, latents: Sequence[int]) -> list[int]:
    """The latents as a list. Raises ValueError for none, and for those that are not there."""
    chosen, count = [int(j) for j in latents], len(dictionary.encoder)
    if not chosen or not 0 <= min(chosen) <= max(chosen) < count:
        raise ValueError(f"latents must be one or more of 0 to {count - 1}, got {chosen}")
    return chosen


def check_width(dictionary: Dictionary, width: int) -> None:
    """Raise ValueError for a dictionary of features of another width than the layer's."""
    if dictionary.encoder.shape[1] != width:
        raise ValueError(
            f"the dictionary is of features of width {dictionary.encoder.shape[1]}, the layer's have {width}"
        )


def by_word(tokens: Tensor, step: Step) -> Tensor:
    """Sum what tokens ``[J, L]`` added by the word they belong to: ``[J, words]``."""
    index = step.batch.word_index[0].to(tokens.device)
    spoken = index >= 0
    words = tokens.new_zeros(len(tokens), len(step.batch.words[0]))
    return words.index_add_(1, index[spoken], tokens[:, spoken])
