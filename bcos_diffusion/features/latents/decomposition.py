"""The predicted x_0 as the sum of what a layer's latents drew of it, of what they missed, and of what went around.

A layer's features are, exactly, their code decoded and the code's error; of a pooled code also what varies over
positions, which it does not see. The rest of the network is linear with factors held, so that the image is the sum of
what it makes of each, and of what reaches it without the layer: skips, later words, x_t itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.explanation.relevance import mean_free
from bcos_diffusion.features.latents.attribution import check_width
from bcos_diffusion.features.latents.direction import push
from bcos_diffusion.features.latents.step import Dictionary, Step, features_of, pass_on

MOST = 32


@dataclass(frozen=True, eq=False)
class Decomposition:
    """One predicted x_0 through one layer; parts are of six channels.

    prediction: ``[6, H, W]``; latents: ``[A]`` int64, active ones by falling activation; activation: ``[A]``, summed
    over positions for a spatial code; parts: ``[A, 6, H, W]``, what each drew; rest: ``[6, H, W]`` by name: "other
    latents" (beyond those listed), "pre-bias" and "error" of the dictionary, "structure" (of a pooled code, what
    varies over positions; zero for a spatial one) and "bypass", what does not come through the layer.
    """

    prediction: Tensor
    latents: Tensor
    activation: Tensor
    parts: Tensor
    rest: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of all parts ``[6, H, W]`` in float64, which is the prediction."""
        return self.parts.double().sum(0) + torch.stack([*self.rest.values()]).double().sum(0)

    @property
    def completeness(self) -> float:
        """Relative error of prediction = sum of parts (L2 over six channels)."""
        prediction = self.prediction.double()
        return float((prediction - self.total).norm() / prediction.norm())

    def shares(self) -> dict[str, tuple[float, float]]:
        """Of the listed latents together and of all else by name: the share of the image's mass, and of its colour.

        Mass is the sum over pixels and channels; colour is how far a part pushes each pixel from the image's mean
        colour to its own. Each sums to 1 over the names.
        """
        image = self.prediction.double()
        parts = {"latents": self.parts.double().sum(0)} | {name: p.double() for name, p in self.rest.items()}
        mass, colour = image.sum(), mean_free(image, image).sum()
        return {n: (float(p.sum() / mass), float(mean_free(p, image).sum() / colour)) for n, p in parts.items()}


@torch.no_grad()
def decompose(step: Step, dictionary: Dictionary, spatial: bool = False, most: int = MOST) -> Decomposition:
    """Take the prediction of a step apart. most: how many latents are listed, those of the largest activation.

    spatial: whether the dictionary is of features at each position, or of their mean. Raises ValueError for a
    dictionary of another width, and for a ``most`` below 1.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    features = features_of(step)  # [P, D]
    check_width(dictionary, features.shape[1])
    read = features if spatial else features.mean(0, keepdim=True)  # [P or 1, D]
    activity, listed, other = _active(dictionary, read, most)
    decoder, pre_bias = dictionary.decoder.to(features), dictionary.pre_bias.to(features)
    drawn = activity[:, :, None] * decoder[listed][:, None]  # [A, P or 1, D]
    error = read - drawn.sum(0) - other - pre_bias
    layers = [*drawn, other, pre_bias.expand_as(read), error, features - read]
    parts = push(step, torch.stack([part.expand_as(features) for part in layers]))
    prediction, around = pass_on(step, features.new_zeros(0, *features.shape), everything_else=True)
    names = ("other latents", "pre-bias", "error", "structure")
    rest = dict(zip(names, parts[len(listed) :], strict=True)) | {"bypass": around[0]}
    return Decomposition(prediction, listed, activity.sum(1), parts[: len(listed)], rest)


def _active(dictionary: Dictionary, read: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of features ``[P, D]``: activations of the ``most`` active latents ``[A, P]``, the latents, and all others.

    The others come decoded, ``[P, D]``.
    """
    values, indices = dictionary.encode(read.to(dictionary.encoder))
    values, indices = values.to(read), indices.to(read.device)
    active, inverse = torch.unique(indices[values > 0], return_inverse=True)
    table = read.new_zeros(len(active), len(read))
    position = (values > 0).nonzero()[:, 0]
    table[inverse, position] = values[values > 0]
    order = table.sum(1).argsort(descending=True, stable=True)
    listed, others = order[:most], order[most:]
    return table[listed], active[listed], table[others].t() @ dictionary.decoder.to(read)[active[others]]
