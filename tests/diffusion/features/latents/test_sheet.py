"""Contact sheets: every thumbnail is its image, in its place, and the row says what they have in common."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bcos_diffusion.features.latents.activations import collect
from bcos_diffusion.features.latents.sheet import GAP, SIDE, draw_sheet, shared_class, write_sheet
from bcos_diffusion.features.latents.top import TopImages, top_images

SIDE_OF_NAMES = 190


def picture(number: int) -> torch.Tensor:
    """A plain colour that tells its number."""
    return torch.tensor([number / 10, 1 - number / 10, 0.5])[:, None, None].expand(3, 8, 8)


def top() -> TopImages:
    values = torch.tensor([[1.0], [3.0], [2.0], [2.0], [5.0], [0.0]])
    return top_images([collect([(values, torch.tensor([0, 0, 0, 0, 1, 1])[:, None])], 3)], 3)


def test_thumbnails_are_the_top_images_in_order(tmp_path: Path) -> None:
    sheet = draw_sheet(picture, top(), [1, 0])
    write_sheet(sheet, tmp_path / "new" / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    height = (pixels.shape[0] - GAP) // 2
    for row, numbers in enumerate([[4], [1, 2, 3]]):
        for column in range(3):
            corner = (GAP + row * height, SIDE_OF_NAMES + column * (SIDE + GAP))
            square = pixels[corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE]
            number = numbers[column] if column < len(numbers) else None
            expected = 1.0 if number is None else picture(number)[:, 0, 0]
            assert np.abs(square / 255 - np.asarray(expected)).max() < 0.003
    assert (pixels[: GAP + height, :SIDE_OF_NAMES] < 128).any()


def test_the_place_of_a_spatial_code_is_marked() -> None:
    values = torch.zeros(4, 1)
    values[2] = 1
    spatial = top_images([collect([(values, torch.zeros(4, 1, dtype=torch.long))], 1, positions=4)], 1)
    plain, marked = (np.asarray(draw_sheet(picture, spatial, [0], grid=grid)) for grid in (None, (2, 2)))
    rows, columns = np.nonzero((plain != marked).any(-1))
    half = SIDE // 2
    assert rows.min() >= GAP + half - 1 and rows.max() < GAP + SIDE
    assert columns.min() >= SIDE_OF_NAMES and columns.max() <= SIDE_OF_NAMES + half
    assert not marked[GAP + half, SIDE_OF_NAMES + 3 : SIDE_OF_NAMES + half - 3].min() < 255


def test_the_class_that_a_row_shares() -> None:
    image = torch.tensor([4, 2, 7, 1, -1])
    assert shared_class("object", torch.tensor([2, 1, 2, -1, 1]), image, ("dog", "cow", "cat")) == "object: cat 2/3"
    assert shared_class("object", torch.full((5,), -1), image, ("dog",)) == "object: none"


def test_rows_grow_with_the_factors() -> None:
    labels = {f"factor {i}": torch.zeros(6, dtype=torch.long) for i in range(9)}
    small, large = (draw_sheet(picture, top(), [0], some, {f: ("x",) for f in some}) for some in ({}, labels))
    assert large.height > small.height


def test_sheets_that_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="one or more of 0 to 2"):
        draw_sheet(picture, top(), [3])
    with pytest.raises(ValueError, match="has labels but no classes"):
        draw_sheet(picture, top(), [0], {"colour": torch.zeros(6, dtype=torch.long)})
    with pytest.raises(ValueError, match=r"int64 \[6\]"):
        draw_sheet(picture, top(), [0], {"colour": torch.zeros(5, dtype=torch.long)}, {"colour": ("x",)})
