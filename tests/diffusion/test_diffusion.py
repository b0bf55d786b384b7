"""The forward process and DDIM against a scalar loop in plain Python."""

import itertools
import math

import numpy as np
import pytest
import torch

from bcos_diffusion.diffusion import (
    MU,
    SIGMA,
    add_noise,
    ddim_step,
    ddim_timesteps,
    noise_schedule,
    paired_noise,
    sample,
)
from bcos_diffusion.encoding import decode, encode, from_pixels, pair_mean, to_pil


def slow_alpha_bar(t: int) -> float:
    product = 1.0
    for i in range(t + 1):
        root = math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999
        product *= 1 - root * root
    return product


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_schedule_matches_the_product_written_out(t: int) -> None:
    assert noise_schedule()[t].item() == pytest.approx(slow_alpha_bar(t), rel=1e-6)


def paired(seed: int) -> torch.Tensor:
    return encode(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).double())


def test_add_noise_matches_a_scalar_loop_and_keeps_pairs() -> None:
    x_0, t = paired(0), torch.tensor([10, 900])
    noise = paired_noise(tuple(x_0.shape), torch.Generator().manual_seed(1)).double()
    x_t = add_noise(x_0, t, noise, noise_schedule().double())
    for n in range(2):
        a = slow_alpha_bar(int(t[n]))
        expected = math.sqrt(a) * x_0[n, 1, 2, 3].item() + (1 - math.sqrt(a)) * MU
        expected += math.sqrt(1 - a) * SIGMA * noise[n, 1, 2, 3].item()
        assert x_t[n, 1, 2, 3].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(x_t[:, :3] + x_t[:, 3:], torch.ones(2, 3, 4, 4, dtype=torch.float64))


def test_standard_step_matches_equation_13() -> None:
    x_t, x_hat = paired(2), paired(3)
    a, b = 0.3, 0.7
    k = math.sqrt((1 - b) / (1 - a))
    got = ddim_step(x_t, x_hat, torch.tensor(a).double(), torch.tensor(b).double(), "standard")
    x, h = x_t[0, 4, 1, 1].item(), x_hat[0, 4, 1, 1].item()
    epsilon = x - math.sqrt(a) * h - (1 - math.sqrt(a)) * MU
    expected = math.sqrt(b) * h + (1 - math.sqrt(b)) * MU + k * epsilon
    assert got[0, 4, 1, 1].item() == pytest.approx(expected, rel=1e-6)


def test_homogeneous_step_equals_standard_on_paired_states_and_is_linear() -> None:
    a, b = torch.tensor(0.3).double(), torch.tensor(0.7).double()
    x_t, x_hat = paired(4), paired(5)
    torch.testing.assert_close(ddim_step(x_t, x_hat, a, b), ddim_step(x_t, x_hat, a, b, "standard"))
    y_t, y_hat = torch.randn(2, 2, 6, 4, 4, dtype=torch.float64).unbind()
    torch.testing.assert_close(
        ddim_step(x_t + 2 * y_t, x_hat + 2 * y_hat, a, b), ddim_step(x_t, x_hat, a, b) + 2 * ddim_step(y_t, y_hat, a, b)
    )


def test_a_perfect_predictor_returns_its_image() -> None:
    x_0, x_T = paired(6), paired(7)
    torch.testing.assert_close(sample(lambda x_t, t: x_0, x_T, noise_schedule().double(), 10), x_0)


@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_timesteps_fall_from_the_noisy_end(steps: int) -> None:
    timesteps = ddim_timesteps(steps)
    assert timesteps[0] == 999 and len(timesteps) == steps
    assert all(a > b >= 0 for a, b in itertools.pairwise(timesteps))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        ddim_timesteps(steps)


def test_decode_inverts_encode_at_any_brightness_and_survives_zero() -> None:
    rgb = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(decode(encode(rgb) * 0.3), rgb)
    assert decode(torch.zeros(1, 6, 2, 2)).eq(0.5).all()
    torch.testing.assert_close(pair_mean(encode(rgb)), torch.full((2, 6, 4, 4), 0.5))


def test_pixels_come_back_from_tensors_as_they_were() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    rgb = from_pixels(pixels)
    assert rgb.shape == (3, 3, 5, 7) and rgb.dtype == torch.float32
    assert rgb[1, 2, 4, 0] == np.float32(pixels[1, 4, 0, 2]) / 255
    for number, image in enumerate(rgb):
        np.testing.assert_array_equal(np.asarray(to_pil(image)), pixels[number])
        assert from_pixels(pixels[number]).equal(image)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_a_shifted_schedule_has_so_much_more_noise_beside_the_image(shift: float) -> None:
    def noise_to_signal(alpha_bar: torch.Tensor) -> torch.Tensor:
        return ((1 - alpha_bar.double()) / alpha_bar.double()).sqrt()

    torch.testing.assert_close(
        noise_to_signal(noise_schedule(shift=shift)), shift * noise_to_signal(noise_schedule()), rtol=1e-3, atol=0
    )
