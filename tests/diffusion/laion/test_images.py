"""Images of every kind become the same square that torchvision makes of an ordinary one."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from references.image_server import encoded, picture, turned
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from bcos_diffusion.laion.images import decode, square

PLAIN = picture()


def prepared(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Appendix D by torchvision."""
    resized = tv.resize(image, [size], InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(tv.center_crop(resized, [size]))


@pytest.mark.parametrize(
    "shape", [(320, 240), (240, 320), (64, 64), (65, 64), (97, 331), (1000, 51), (20, 40), (63, 17)]
)
@pytest.mark.parametrize("size", [32, 64, 65])
def test_resizing_and_cropping_are_torchvisions(shape: tuple[int, int], size: int) -> None:
    image = picture(*shape)
    assert np.array_equal(square(image, size), prepared(image, size))


def test_resizing_is_antialiased() -> None:
    fine = Image.fromarray((np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert np.abs(square(fine, 64).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_formats_without_loss_keep_every_pixel(kind: str) -> None:
    decoded = decode(encoded(PLAIN, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert decoded.mode == "RGB" and np.array_equal(decoded, PLAIN)


def nearly(data: bytes, mean: float, expected: Image.Image = PLAIN) -> bool:
    decoded = decode(data)
    assert decoded.mode == "RGB" and decoded.size == expected.size
    return float(np.abs(np.asarray(decoded).astype(int) - np.asarray(expected)).mean()) < mean


def test_grey_palette_and_cmyk_become_rgb() -> None:
    assert nearly(encoded(PLAIN, quality=95), 2)
    assert nearly(encoded(PLAIN.convert("CMYK"), quality=95), 4)
    assert nearly(encoded(PLAIN.quantize(256), "GIF"), 8) and nearly(encoded(PLAIN.quantize(256), "PNG"), 8)
    grey = PLAIN.convert("L")
    assert nearly(encoded(grey, "PNG"), 0.1, grey.convert("RGB"))
    assert nearly(encoded(grey.convert("1"), "PNG"), 0.1, grey.convert("1").convert("RGB"))


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    eight = np.arange(20 * 30).reshape(20, 30) % 256
    deep = Image.fromarray((eight * 257).astype(np.uint16))
    assert np.array_equal(np.asarray(decode(encoded(deep, "PNG")))[..., 0], eight)
    assert np.array_equal(np.asarray(decode(encoded(deep, "TIFF")))[..., 2], eight)


def test_what_is_transparent_becomes_white() -> None:
    alpha = Image.new("L", PLAIN.size, 255)
    alpha.paste(0, (0, 0, 160, 240))
    alpha.paste(128, (160, 0, 320, 120))
    half = PLAIN.copy()
    half.putalpha(alpha)
    seen = np.asarray(decode(encoded(half, "PNG"))).astype(int)
    assert (seen[:, :160] == 255).all() and np.array_equal(seen[120:, 160:], np.asarray(PLAIN)[120:, 160:])
    mixed = 255 + (np.asarray(PLAIN)[:120, 160:].astype(float) - 255) * 128 / 255
    assert np.abs(seen[:120, 160:] - mixed).max() <= 1
    clear = PLAIN.quantize(16)
    data = encoded(clear, "PNG", transparency=clear.getpixel((0, 0)))
    assert np.asarray(decode(data))[0, 0].tolist() == [255, 255, 255]
    assert np.asarray(decode(encoded(clear, "PNG")))[0, 0].tolist() != [255, 255, 255]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_pictures_stand_upright_by_their_own_exif_or_by_what_is_known_of_it(orientation: int) -> None:
    data = turned(PLAIN, orientation)
    assert nearly(data, 2.5)
    lost = encoded(Image.open(io.BytesIO(data)), "PNG")  # the pixels as they lie, without EXIF
    assert not np.array_equal(decode(lost), decode(data))
    assert np.array_equal(decode(lost, orientation), decode(data))
    assert np.array_equal(decode(data, 3), decode(data))  # its own EXIF comes first


def test_an_animation_is_its_first_picture() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(data))[20, 20].tolist() == [255, 0, 0]


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large: only the header is true."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image"),
        (b"<html><body>gone</body></html>", "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image"),
        (EPS, "not an image"),
        (encoded(PLAIN)[:4000], "damaged image"),
        (encoded(PLAIN, "PNG")[:700], "damaged image"),
        (encoded(PLAIN, "WEBP")[:500], "damaged image|not an image"),
        (encoded(picture(1, 1), "GIF"), "image too small"),
        (encoded(picture(400, 15), "PNG"), "image too small"),
        (encoded(picture(700, 20), "PNG"), "image too long"),
        (bomb(9_000, 9_000), "image too large"),
        (bomb(40_000, 40_000), "image too large"),
    ],
)  # fmt: skip
def test_what_is_not_usable_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^({reason})$"):
        decode(data)
