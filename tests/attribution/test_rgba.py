"""RGBA images: pixel by pixel against a slow drawing and against the bcos library, and where it draws nonsense."""

import numpy as np
import pytest
import torch

from bcos_kernels import rgba_image

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def drawn_slowly(image, weights, smooth, percentile):
    """One image, in loops and float64."""
    image, weights = image.double().numpy(), weights.double().numpy()
    _, height, width = image.shape
    picture, strength = np.zeros((4, height, width)), np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            w = weights[:, i, j]
            for c in range(3):
                first, second = max(w[c], 0), max(w[c + 3], 0)
                picture[c, i, j] = first / (first + second) if first + second else 0
            strength[i, j] = np.sqrt((w**2).sum()) if (w * image[:, i, j]).sum() >= 0 else 0
    if smooth:
        reach, sharp = smooth // 2, np.pad(strength, smooth // 2)
        for i in range(height):
            for j in range(width):
                strength[i, j] = sharp[i : i + 2 * reach + 1, j : j + 2 * reach + 1].sum() / smooth**2
    picture[3] = np.clip(strength / np.percentile(strength, percentile), 0, 1)
    return torch.from_numpy(picture)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 6, 9, 11, generator=generator).double()
    return image, torch.randn(3, 6, 9, 11, generator=generator).double()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("smooth", "percentile"), [(15, 99.5), (3, 80.0), (0, 100.0), (1, 70.0)])
def test_against_a_slow_drawing(pair, dtype, smooth, percentile):
    image, weights = (part.to(dtype) for part in pair)
    found = rgba_image(image, weights, smooth, percentile)
    assert found.dtype == torch.promote_types(dtype, torch.float32) and found.shape == (3, 4, 9, 11)
    expected = torch.stack([drawn_slowly(*both, smooth, percentile) for both in zip(image, weights, strict=True)])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize(("smooth", "percentile"), [(15, 99.5), (5, 90.0), (0, 99.5)])
def test_against_the_bcos_library(pair, smooth, percentile):
    library = pytest.importorskip("bcos.common")
    image, weights = (part.float() for part in pair)
    found = rgba_image(image, weights, smooth, percentile).permute(0, 2, 3, 1)
    for number in range(3):
        theirs = torch.from_numpy(library.gradient_to_image(image[number], weights[number], smooth, percentile))
        torch.testing.assert_close(found[number], theirs, rtol=0, atol=2e-6)


def test_any_batch(pair):
    image, weights = pair
    whole = rgba_image(image, weights)
    assert torch.equal(rgba_image(image[0], weights[0]), whole[0])
    several = rgba_image(image.expand(2, 3, -1, -1, -1), torch.stack([weights, -weights]))
    torch.testing.assert_close(several[0], whole)
    torch.testing.assert_close(several[1], rgba_image(image, -weights))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_positive_is_transparent(dtype):
    image = torch.rand(2, 6, 8, 8).to(dtype)
    weights = torch.stack([torch.zeros(6, 8, 8), -torch.rand(6, 8, 8) - 0.1]).to(dtype)
    found = rgba_image(image, weights)
    assert found.isfinite().all() and not found[:, 3].any()


def test_a_single_bright_pixel_is_drawn():
    weights = torch.zeros(6, 40, 40)
    weights[0, 3, 4] = 2
    found = rgba_image(torch.ones(6, 40, 40), weights, smooth=0)  # the percentile of its alpha is 0
    assert found[:, 3, 4].tolist() == [1, 0, 0, 1]
    assert found[3].sum() == 1 and found.isfinite().all()


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_the_scale_of_weights_does_not_matter(pair, scale):
    image, weights = (part.float() for part in pair)
    torch.testing.assert_close(rgba_image(image, weights * scale), rgba_image(image, weights))


def test_half_precision_does_not_overflow():
    weights = torch.full((6, 8, 8), 60000.0, dtype=torch.float16)
    found = rgba_image(torch.ones(6, 8, 8, dtype=torch.float16), weights, smooth=0)
    assert torch.equal(found, torch.tensor([0.5, 0.5, 0.5, 1]).view(4, 1, 1).expand(4, 8, 8))


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((2, 3, 8, 8), {}, r"\[\*, 6, H, W\]"),
        ((6, 8), {}, r"\[\*, 6, H, W\]"),
        ((0, 6, 8, 8), {}, "no pixel"),
        ((6, 8, 8), {"smooth": 4}, "odd"),
        ((6, 8, 8), {"smooth": -1}, "odd"),
        ((6, 8, 8), {"percentile": 101}, "percentile"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, says):
    with pytest.raises(ValueError, match=says):
        rgba_image(torch.rand(shape), torch.rand(shape), **options)
