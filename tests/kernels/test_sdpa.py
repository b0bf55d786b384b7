"""Attention of narrow types equals that of the same numbers in fp64 to the rounding of the type, gradients too."""

import math

import pytest
import torch

from bcos_kernels.sdpa import sdpa

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def slow(query, key, value, visible, scale):
    scores = query @ key.transpose(-1, -2) * scale
    if visible is not None:
        scores = scores.masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ value


def drawn(dtype, requires_grad):
    torch.manual_seed(0)
    shapes = ((2, 3, 17, 20), (2, 3, 9, 20), (2, 3, 9, 33))
    return [torch.randn(*shape).to(dtype).requires_grad_(requires_grad) for shape in shapes]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_gradients_are_those_of_the_formula(dtype, masked, autocast):
    parts = drawn(dtype, requires_grad=True)
    wide = [part.detach().double().requires_grad_() for part in parts]
    visible = torch.rand(2, 1, 1, 9) > 0.4 if masked else None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = sdpa(*parts, visible, scale=0.3)
    expected = slow(*wide, visible, 0.3)
    narrow = torch.bfloat16 if autocast and dtype == torch.float32 else dtype
    bound = 4 * torch.finfo(narrow).eps
    torch.testing.assert_close(out.double(), expected, rtol=bound, atol=bound)
    grad = torch.randn(out.shape).to(out.dtype)
    out.backward(grad)
    expected.backward(grad.double())
    for part, other in zip(parts, wide, strict=True):
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(part.grad.double(), other.grad, rtol=bound, atol=4 * bound * scale)


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_narrow_types_lose_no_more_than_their_result_is_rounded(dtype):
    query, key, value = drawn(dtype, requires_grad=False)
    exact = slow(query.double(), key.double(), value.double(), None, 0.2)
    out = sdpa(query, key, value, None, scale=0.2)
    assert out.dtype == dtype
    assert ((out.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs() + 1e-6).all()
