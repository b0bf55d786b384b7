"""Random sparse codes with ties, and what they are as plain lists."""

import torch
from torch import Tensor


def random_codes(images: int, latents: int, k: int, positions: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values in steps of a quarter, so that many are equal and some are 0, and distinct indices a row."""
    generator = torch.Generator().manual_seed(seed)
    rows = images * positions
    indices = torch.rand(rows, latents, generator=generator).argsort(1)[:, :k]
    return torch.randint(0, 6, (rows, k), generator=generator) / 4, indices


def dense(values: Tensor, indices: Tensor, latents: int, positions: int = 1) -> tuple[Tensor, Tensor]:
    """Activations ``[images, latents]`` and the places of the largest, by loops; place -1 where not active."""
    images = len(values) // positions
    found, places = torch.zeros(images, latents), torch.full((images, latents), -1)
    for row in range(len(values)):
        for value, latent in zip(values[row].tolist(), indices[row].tolist(), strict=True):
            image = row // positions
            if value > found[image, latent]:
                found[image, latent], places[image, latent] = value, row % positions
    return found, places


def batches(values: Tensor, indices: Tensor, images: int, positions: int = 1) -> list[tuple[Tensor, Tensor]]:
    """The codes in batches of so many images."""
    rows = images * positions
    return list(zip(values.split(rows), indices.split(rows), strict=True))
