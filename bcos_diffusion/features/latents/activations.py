"""Which latents are active on which images, how strongly and where: sparse codes turned from images to latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activations:
    """The activations above 0 of ``latents`` latents on ``images`` images: M of them, one a latent and image.

    latent, image: ``[M]`` int64, in rising order of latent, then image; value: ``[M]``; place: ``[M]`` int64, the
    position (row-major) where a spatial code is the strongest on its image, the first of equals; 0 for pooled codes.
    """

    latent: Tensor
    image: Tensor
    value: Tensor
    place: Tensor
    latents: int
    images: int

    def __len__(self) -> int:
        return len(self.latent)

    @property
    def active(self) -> Tensor:
        """On how many images each latent is active: ``[latents]`` int64."""
        return torch.bincount(self.latent, minlength=self.latents)

    def keep(self, chosen: Tensor) -> Activations:
        """Those of the ``[M]`` entries that are chosen: a mask, or numbers in the order wanted."""
        parts = {name: getattr(self, name)[chosen] for name in ("latent", "image", "value", "place")}
        return replace(self, **parts)

    def among(self, wanted: Tensor) -> Activations:
        """The activations on the images of a mask ``[images]`` bool alone, which keep their numbers."""
        if wanted.shape != (self.images,) or wanted.dtype != torch.bool:
            raise ValueError(f"the mask must be [{self.images}] bool, got {list(wanted.shape)} {wanted.dtype}")
        return self.keep(wanted[self.image])


def stream(codes: Iterable[tuple[Tensor, Tensor]], latents: int, positions: int = 1) -> Iterator[Activations]:
    """Read codes batch by batch; images are numbered in the order they come.

    codes: values and indices ``[B * positions, k]`` of B images each, the positions of an image one after the other.
    Of a spatial code an image's activation is the largest over its positions. A value of 0 is not active. Raises
    ValueError for codes that do not fit, and for values that are negative or not finite.
    """
    if latents < 1 or positions < 1:
        raise ValueError(f"latents and positions must be at least 1, got {latents} and {positions}")
    first = 0
    for values, indices in codes:
        _check(values, indices, latents, positions)
        images = len(values) // positions
        yield _of_batch(values.detach().cpu(), indices.cpu(), latents, positions, first, images)
        first += images


def _check(values: Tensor, indices: Tensor, latents: int, positions: int) -> None:
    if values.ndim != 2 or values.shape != indices.shape:
        raise ValueError(f"codes must be values and indices [N, k], got {list(values.shape)} and {list(indices.shape)}")
    if len(values) % positions:
        raise ValueError(f"{len(values)} rows are no whole images of {positions} positions each")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < latents:
        raise ValueError(f"indices must be in [0, {latents}), got {int(indices.min())} to {int(indices.max())}")
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError("the values of codes must be finite and not negative")


def _of_batch(values: Tensor, indices: Tensor, latents: int, positions: int, first: int, images: int) -> Activations:
    row, column = (values > 0).nonzero(as_tuple=True)
    value, place = values[row, column], row % positions
    pair = indices[row, column].long() * images + row // positions  # in rising order: by latent, then by image
    pair, inverse = torch.unique(pair, return_inverse=True)
    most = value.new_zeros(len(pair)).scatter_reduce(0, inverse, value, "amax")
    candidates = torch.where(value == most[inverse], place, positions)
    where = torch.full_like(pair, positions).scatter_reduce(0, inverse, candidates, "amin")
    return Activations(pair // max(images, 1), first + pair % max(images, 1), most, where, latents, first + images)


def join(batches: Iterable[Activations]) -> Activations:
    """All activations of a stream as one. Raises ValueError where there is no batch."""
    parts = list(batches)
    if not parts:
        raise ValueError("there are no codes to read")
    fields = {n: torch.cat([getattr(p, n) for p in parts]) for n in ("latent", "image", "value", "place")}
    images = max(p.images for p in parts)
    joined = Activations(**fields, latents=parts[0].latents, images=images)
    return joined.keep(torch.argsort(joined.latent * images + joined.image))


def collect(codes: Iterable[tuple[Tensor, Tensor]], latents: int, positions: int = 1) -> Activations:
    """Read codes as :func:`stream` does, and keep all that is active: memory grows with what is active alone."""
    return join(stream(codes, latents, positions))
