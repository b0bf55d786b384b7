"""Explanation mode: nestable, per thread, restored after errors, and with no memory of modules."""

import threading

import pytest
import torch
from torch import nn

from bcos_kernels.mode import explanation_mode, hold, is_explaining, primal, slices, stacked, weigh
from bcos_kernels.modules.conv import BcosConv2d
from bcos_kernels.modules.gates import SiLU
from bcos_kernels.modules.linear import BcosLinear
from bcos_kernels.modules.norms import GroupNorm


def test_nests_and_ends_with_the_outermost_block():
    assert not is_explaining()
    with explanation_mode():
        with explanation_mode():
            assert is_explaining()
        assert is_explaining()
    assert not is_explaining()


def test_ends_after_an_error():
    with pytest.raises(KeyError), stacked(3):
        raise KeyError
    assert not is_explaining()
    assert slices() == 1


def test_inner_stack_restores_the_outer_one():
    with stacked(2):
        with stacked(5):
            assert slices() == 5
        assert slices() == 2
        with explanation_mode():
            assert slices() == 2


def test_a_thread_does_not_see_the_mode_of_another():
    inside, done = threading.Event(), threading.Event()
    seen = {}

    def explain():
        with stacked(4):
            inside.set()
            done.wait(10)
            seen["explaining"] = is_explaining(), slices()

    thread = threading.Thread(target=explain)
    thread.start()
    assert inside.wait(10)
    seen["other"] = is_explaining(), slices()
    with explanation_mode():
        pass
    done.set()
    thread.join()
    assert seen == {"other": (False, 1), "explaining": (True, 4)}


def test_hold_stops_gradients_only_while_explaining():
    x = torch.tensor(3.0, requires_grad=True)
    assert torch.autograd.grad(x * hold(x), x)[0] == 6
    with explanation_mode():
        assert torch.autograd.grad(x * hold(x), x)[0] == 3


def test_hold_stops_forward_tangents():
    def square(x):
        return x * hold(x)

    x = torch.tensor(3.0)
    assert torch.func.jvp(square, (x,), (torch.tensor(1.0),))[1] == 6
    with explanation_mode():
        assert torch.func.jvp(square, (x,), (torch.tensor(1.0),))[1] == 3


def test_weigh_gives_every_part_the_factor_of_the_primal():
    x = torch.arange(12.0).view(6, 2)
    with stacked(3):
        assert torch.equal(primal(x), x[:2])
        weighed = weigh(x, primal(x) + 1)
    assert torch.equal(weighed, x * (x[:2] + 1).repeat(3, 1))


def test_weigh_keeps_channels_last():
    x = torch.randn(6, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    with stacked(3):
        assert weigh(x, primal(x)).is_contiguous(memory_format=torch.channels_last)


def test_bad_stacks_are_refused():
    with pytest.raises(ValueError, match="at least 1"), stacked(0):
        pass
    with stacked(3), pytest.raises(ValueError, match="multiple of 3 rows, got 4"):
        primal(torch.zeros(4, 2))


def test_a_layer_replaced_inside_the_block_is_held_too():
    x = torch.randn(5, dtype=torch.double, requires_grad=True)
    model = nn.Sequential(nn.Identity())
    with explanation_mode():
        model(x)
        model[0] = SiLU()
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    assert torch.allclose(gradient, torch.sigmoid(x))


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: BcosConv2d(12, 24, 3, padding=1, b=2),
        lambda: BcosConv2d(12, 24, 3, padding=1, b=1.5, max_out=2),
        lambda: BcosConv2d(12, 24, 3, stride=2, b=1),
        lambda: GroupNorm(4, 12),
    ],
)
def test_a_stack_changes_no_bit_of_its_first_part(layer, dtype, parts):
    torch.manual_seed(parts)
    layer, x = layer().to(dtype), torch.randn(parts * 2, 12, 9, 9).to(dtype)
    with torch.no_grad():
        alone = layer(x[:2])
        with stacked(parts):
            assert torch.equal(layer(x)[:2], alone)


@pytest.mark.parametrize("b", [1, 1.25, 2])
def test_a_stack_of_vectors_changes_no_bit_of_its_first_part(b):
    torch.manual_seed(0)
    layer, x = BcosLinear(40, 56, b=b, max_out=2), torch.randn(4 * 3, 7, 40)
    with torch.no_grad():
        alone = layer(x[:3])
        with stacked(4):
            assert torch.equal(layer(x)[:3], alone)
