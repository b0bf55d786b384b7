"""The U-Net's shape: what it refuses, what it is made of, and where its words start from."""

import math
from typing import Any

import pytest
import torch

from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.unet import UNet, UNetConfig

TINY = UNetConfig(size=16, widths=(8, 16), heads=2, text_dim=8, time_dim=8, self_attention=(False, True),
                  cross_attention=(True, True))  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 18}, "multiple of 4"),
        ({"self_attention": (True,)}, "self_attention needs one entry per level: 2"),
        ({"cross_attention": (True,)}, "cross_attention needs one entry per level: 2"),
        ({"time_conditioning": "shift"}, "time_conditioning must be one of"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetConfig(**(TINY.to_dict() | wrong))


def test_a_picture_of_another_size_is_refused() -> None:
    nothing = Conditioning(torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), torch.ones(1, 2, dtype=torch.bool))
    for shape, message in (((1, 3, 16, 16), r"x_t must be \[N, 6, H, W\]"), ((1, 6, 16, 15), "must be multiples of")):
        with pytest.raises(ValueError, match=message):
            UNet(TINY)(torch.zeros(shape), torch.zeros(1, dtype=torch.long), nothing)


def test_words_start_from_plane_waves() -> None:
    """A wave sampled at equal steps obeys w(i + 1) + w(i - 1) = 2 cos(k) w(i) along each axis, with |w| ≤ height."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(size=32))
    learned = ("tokens.place", "tokens.position")
    places = {name: p.detach().double() for name, p in network.named_parameters() if name.endswith(learned)}
    assert len(places) == 12
    for place in places.values():
        side = math.isqrt(len(place))
        waves = place.T.unflatten(1, (side, side))  # [C, H, W]
        assert waves.abs().max() <= 0.8 + 1e-6 and waves.std(0).min() > 0.3
        for axis in (1, 2):
            middle = waves.narrow(axis, 1, side - 2)
            outer = waves.narrow(axis, 0, side - 2) + waves.narrow(axis, 2, side - 2)
            ratio = (outer * middle).sum((1, 2), keepdim=True) / (middle * middle).sum((1, 2), keepdim=True)
            torch.testing.assert_close(outer, ratio * middle, rtol=0, atol=2e-5)
            assert ratio.std() > 0.05
