"""From the bytes of an image, whatever is in them, to the square that a model is trained on (Appendix D)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

# Limits of ours; the paper says nothing of them. Below 16 pixels are icons and the dots that count visitors, far from
# square are rulers and banners; the last keeps one image from filling the memory.
SMALLEST_SIDE = 16
LARGEST_ASPECT = 20
MOST_PIXELS = 80_000_000

# Formats of pictures alone: PIL also opens documents, by starting other programs.
Image.init()
_FORMATS: list[str] = [name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN]

_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, orientation: int = 1) -> Image.Image:
    """The first picture in an image file, upright, as RGB.

    orientation: EXIF's number, 1 to 8, for a file that has lost its own EXIF; one that has it is turned
    by it. Transparent parts become white; 16 bits of grey become 8. Raises ValueError, saying which of
    the few things that go wrong it was: not an image, damaged, too small, too large, too long.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise ValueError("image too large") from None
    except Exception:  # decoders meet every kind of damage and raise every kind of exception
        raise ValueError("not an image") from None
    short, long = sorted(image.size)
    if short < SMALLEST_SIDE:
        raise ValueError("image too small")
    if long > LARGEST_ASPECT * short:
        raise ValueError("image too long")
    if short * long > MOST_PIXELS:
        raise ValueError("image too large")
    try:
        image.load()
        has_own = ExifTags.Base.Orientation in image.getexif()
        rgb = _rgb(ImageOps.exif_transpose(image) if has_own else image)
    except Exception:
        raise ValueError("damaged image") from None
    return rgb if has_own or orientation not in _TRANSPOSED else rgb.transpose(_TRANSPOSED[orientation])


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # grey of 16 bits, which PIL would cut off at 255
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size`` bilinearly (antialiased), crop the centre: uint8 [size, size, 3]."""
    width, height = image.size
    short = min(width, height)
    scaled = image.resize((size * width // short, size * height // short), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in scaled.size)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))
