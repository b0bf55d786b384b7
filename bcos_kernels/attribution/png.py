"""Images as PNG files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from bcos_kernels.files import write_atomically


def write_png(path: Path | str, image: Tensor, scale: int = 1) -> None:
    """Write RGB ``[3, H, W]`` or RGBA ``[4, H, W]`` in [0, 1] as 8-bit PNG, each pixel ``scale`` times as large.

    Values outside [0, 1] are cut. Raises ValueError on another shape or on NaN, OSError naming ``path``.
    """
    picture = to_pil(image)
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    write_atomically(Path(path), lambda temporary: picture.save(temporary, format="PNG"))


def to_pil(image: Tensor) -> Image.Image:
    """The picture of RGB ``[3, H, W]`` or RGBA ``[4, H, W]``; see :func:`write_png`."""
    if image.ndim != 3 or image.shape[0] not in (3, 4) or not image.numel():
        raise ValueError(f"image must be RGB [3, H, W] or RGBA [4, H, W], got {list(image.shape)}")
    values = image.detach().float().cpu()
    if values.isnan().any():
        raise ValueError("image holds NaN, which has no colour")
    return Image.fromarray((values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
