"""Where sampling starts: pure noise x_T, or a real image noised to any timestep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from bcos_diffusion.diffusion import MU, SIGMA, T, add_noise, paired_noise
from bcos_diffusion.encoding import encode, from_pixels


@dataclass(frozen=True)
class Start:
    """A real image, rgb ``[3, H, W]`` in [0, 1], to be noised to timestep t; ``name``: where it came from."""

    image: Tensor
    t: int
    name: str = "image"

    def __post_init__(self) -> None:
        if not 0 <= self.t < T:
            raise ValueError(f"the timestep to start from must be between 0 and {T - 1}, got {self.t}")
        if self.image.ndim != 3 or len(self.image) != 3:
            raise ValueError(f"the image to start from must be rgb [3, H, W], got {list(self.image.shape)}")


def first_state(seed: int, size: tuple[int, int], start: Start | None, alpha_bar: Tensor) -> Tensor:
    """The first x_t ``[6, H, W]`` of a run, whose pairs sum to one, in float32 on the CPU: the same on every machine.

    size: ``(H, W)``; alpha_bar: ``[T]``. Without a start it is noise; with one, the image noised by the same noise.
    """
    noise = paired_noise((1, 6, *size), torch.Generator().manual_seed(seed))
    if start is None:
        return (MU + SIGMA * noise)[0]
    x_0 = encode(start.image[None].float().cpu())
    if tuple(x_0.shape[-2:]) != size:
        raise ValueError(f"the image to start from is {list(x_0.shape[-2:])}, the model draws {list(size)}")
    return add_noise(x_0, torch.tensor([start.t]), noise, alpha_bar.float().cpu())[0]


def load_image(path: Path, size: tuple[int, int]) -> Tensor:
    """Read an image as rgb ``[3, H, W]`` in [0, 1]: scaled to cover ``size`` (H, W), bilinear, and cropped centrally.

    What is transparent becomes white. Raises FileNotFoundError, or ValueError for what is no image.
    """
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from None
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    fitted = ImageOps.fit(opaque, size[::-1], Image.Resampling.BILINEAR)
    return from_pixels(np.array(fitted))
