"""The same bits every time, and nothing that torch calls nondeterministic."""

import pytest
import torch

from bcos_kernels.functional import bcos_conv2d, bcos_linear

LAYERS = {
    "linear": (lambda x, w: bcos_linear(x.flatten(2), w.flatten(1)), (4, 9, 6, 6), (12, 36)),
    "conv": (lambda x, w: bcos_conv2d(x, w, padding=1), (4, 6, 9, 9), (12, 6, 3, 3)),
    "maxout": (lambda x, w: bcos_conv2d(x, w, 1.5, max_out=2, stride=2), (4, 6, 9, 9), (12, 6, 3, 3)),
    "grouped": (lambda x, w: bcos_conv2d(x, w, groups=3, padding="same"), (4, 6, 9, 9), (12, 2, 3, 3)),
    "lengths kept": (lambda x, w: bcos_conv2d(x, w, max_out=2, convention="C"), (4, 6, 9, 9), (12, 6, 3, 3)),
}


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_training_steps_repeat_to_the_bit(name, dtype, backend):
    layer, *shapes = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    steps = []
    for _ in range(3):
        out = layer(x, w)
        steps.append((out, *torch.autograd.grad(out.float().square().sum(), (x, w))))
    for step in steps[1:]:
        assert all(torch.equal(a, b) for a, b in zip(steps[0], step, strict=True))
