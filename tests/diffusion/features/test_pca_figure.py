"""The figure of PCA maps: each column shows its own colours at the size of the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bcos_diffusion.features.pca_figure import draw_pca


def plain(colour: tuple[float, float, float], side: int, count: int = 2) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.float32)[None, :, None, None].expand(count, 3, side, side)


def shares(path: Path, colour: tuple[int, int, int]) -> tuple[float, float]:
    """The share of pixels of a colour, and the mean column of them as a share of the width."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    hit = (np.abs(pixels - colour) <= 2).all(-1)
    return float(hit.mean()), float(hit.nonzero()[1].mean() / pixels.shape[1])


def test_images_come_first_and_columns_follow_in_order(tmp_path):
    path = tmp_path / "pca.png"
    maps = {"bottleneck": plain((1, 0, 0), 2), "up_ft0": plain((0, 0, 1), 4)}
    draw_pca(plain((0, 1, 0), 8), maps, path, {"up_ft0": torch.tensor([0.5, 0.25, 0.125])}, "t = 25")
    image, red, blue = (shares(path, colour) for colour in ((0, 255, 0), (255, 0, 0), (0, 0, 255)))
    assert image[1] < red[1] < blue[1]
    assert image[0] == pytest.approx(red[0], rel=0.02) and red[0] == pytest.approx(blue[0], rel=0.02)
    assert image[0] > 0.15
    again = tmp_path / "again.png"
    draw_pca(plain((0, 1, 0), 8), maps, again, {"up_ft0": torch.tensor([0.5, 0.25, 0.125])}, "t = 25")
    assert again.read_bytes() == path.read_bytes()


def test_bad_maps_are_refused_and_write_nothing(tmp_path):
    images, path = plain((0, 1, 0), 8), tmp_path / "pca.png"
    cases = [
        (images, {}, "at least one column"),
        (images, {"up_ft0": plain((0, 0, 1), 4, 3)}, "maps of 'up_ft0'"),
        (images[0], {"up_ft0": plain((0, 0, 1), 4)}, "images must be"),
    ]
    for given, maps, said in cases:
        with pytest.raises(ValueError, match=said):
            draw_pca(given, maps, path)
    assert not list(tmp_path.iterdir())
