"""The relevance reductions as torch operators: schema, shapes, gradients, and whole graphs."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from bcos_kernels import attention_relevance, attention_relevance_maps, contribution

ops = torch.ops.bcos_kernels


def random(*shape, seed=0, grad=False):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_(grad)


def attention(grad=False):
    shapes = ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2), (2, 3, 5, 2))
    return [random(*shape, seed=i, grad=grad) for i, shape in enumerate(shapes)]


CALLS = [
    ("contribution", lambda grad: [random(2, 3, 4, grad=grad), random(2, 3, 4, seed=1, grad=grad), (-1, 0)]),
    ("contribution", lambda grad: [random(2, 3, grad=grad), random(2, 3, seed=1, grad=grad), ()]),
    ("attention_relevance", attention),
    ("attention_relevance", lambda grad: [*attention(grad), random(1, 1, 5, 6, seed=9) > 0, 0.3]),
    ("attention_relevance_maps", lambda grad: [*attention(grad), random(2, 1, 1, 6, seed=9, grad=grad)]),
    ("attention_relevance_maps", lambda grad: [*attention(grad), None, None, False]),
]


@pytest.mark.parametrize(("name", "arguments"), [*CALLS, ("attention_backward", attention)])
def test_opcheck(name, arguments):
    opcheck(getattr(ops, name), tuple(arguments(False)))


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_gradients(name, arguments, backend):
    operator, inputs = getattr(ops, name), tuple(arguments(True))
    assert gradcheck(operator, inputs)
    assert gradgradcheck(operator, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("function", "name", "number"),
    [(contribution, *CALLS[0]), (attention_relevance, *CALLS[3]), (attention_relevance_maps, *CALLS[4])],
)
def test_functions_compile_whole(function, name, number):
    torch._dynamo.reset()
    inputs = number(False)
    found = torch.compile(function, backend="aot_eager", fullgraph=True)(*inputs)
    torch.testing.assert_close(found, function(*inputs))
