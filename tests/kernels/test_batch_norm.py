"""Batch norm without a bias, beside torch's and the formulas of the bcos library: training, evaluation, explanation."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from bcos_kernels import completeness, contributions, explanation_mode, maps, stacked
from bcos_kernels.modules.norms import BatchNorm2d

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPE = (4, 3, 5, 6)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(**options):
    """Ours and torch's without a bias, with the same weight."""
    ours, theirs = BatchNorm2d(3, **options).double(), nn.BatchNorm2d(3, **options).double()
    theirs.bias = None
    if ours.weight is not None:
        ours.weight.data = theirs.weight.data = random(3, seed=9) + 1
    return ours, theirs


def trained(**options):
    """A norm in evaluation whose statistics are those of some batches."""
    norm = BatchNorm2d(3, **options).double()
    norm.weight.data = random(3, seed=9) + 1
    for seed in range(3):
        norm(random(*SHAPE, seed=seed) * 2 + 1)
    return norm.eval()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_centred_is_that_of_torch(affine, momentum, layout, backend):
    ours, theirs = pair(affine=affine, momentum=momentum)
    for seed in range(3):
        x = (random(*SHAPE, seed=seed) * 2 + 1).to(memory_format=layout).requires_grad_()
        out, expected = ours(x), theirs(x)
        torch.testing.assert_close(out, expected)
        assert out.is_contiguous(memory_format=layout)
        grads = (torch.autograd.grad(o.square().sum() + o.pow(3).sum(), x)[0] for o in (out, expected))
        torch.testing.assert_close(*grads)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("about_mean", [True, False])
def test_uncentred_is_that_of_the_bcos_library(about_mean, backend):
    """As bcos.modules.norms.uncentered_norms.batchnorm_uncentered: the biased variance, and no mean."""
    norm, x = BatchNorm2d(3, centred=False, about_mean=about_mean).double(), random(*SHAPE) * 2 + 1
    square = (x - x.mean((0, 2, 3), keepdim=True) if about_mean else x).square().mean((0, 2, 3))
    torch.testing.assert_close(norm(x), x / (square + norm.eps).sqrt().view(3, 1, 1))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * square)
    assert not norm.running_mean.any()
    norm.eval()
    torch.testing.assert_close(norm(x), x / (norm.running_var + norm.eps).sqrt().view(3, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_value_is_as_close_to_the_truth_as_torch(training, dtype):
    ours, theirs = (m.to(dtype).train(training) for m in pair())
    x = (random(*SHAPE) * 3 + 2).to(dtype)
    truth = pair()[1].to(dtype).double().train(training)(x.double())
    error, allowed = ((m(x).double() - truth).abs().max() for m in (ours, theirs))
    assert ours(x).dtype == dtype
    assert error <= 2 * allowed + 4 * torch.finfo(torch.float32).eps * truth.abs().max()


@pytest.mark.parametrize("centred", [True, False])
def test_derivatives_in_evaluation(centred, backend):
    norm, x = trained(centred=centred), random(2, 3, 2, 3, seed=5).requires_grad_()

    def function(x, weight, mean):
        replaced = {"weight": weight, "running_mean": mean}
        return torch.func.functional_call(norm, replaced, (x,))

    mean = norm.running_mean.clone().requires_grad_(centred)
    inputs = x, norm.weight.detach().clone().requires_grad_(), mean
    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs, fast_mode=True)
    tangents = [random(*t.shape, seed=7) for t in inputs]
    step, values = 1e-6, [t.detach() for t in inputs]
    with torch.no_grad(), forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(values, tangents, strict=True)]
        tangent = forward_ad.unpack_dual(function(*duals)).tangent
    ahead, behind = (
        function(*(t + s * d for t, d in zip(values, tangents, strict=True))) for s in (step, -step)
    )  # fmt: skip
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


def test_completeness_reports_the_running_mean_as_a_bias():
    x = random(*SHAPE, seed=5)
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), trained(), trained(centred=False)).double()
    report = completeness(model, x)
    assert report.error < 1e-12
    assert set(report.mass) == {"input", "1.running_mean"}
    norm, last = model[1], model[2]
    taken = -(norm.running_mean / (norm.running_var + norm.eps).sqrt() * norm.weight)
    gain = last.weight / (last.running_var + last.eps).sqrt()
    torch.testing.assert_close(report.mass["1.running_mean"], float((taken * gain).detach().sum() * 4 * 30))
    assert abs(report.budget["rest"]) < 1e-12
    alone = completeness(trained(), x)
    assert set(alone.mass) == {"input", "running_mean"} and alone.error < 1e-12


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("centred", [True, False])
def test_in_a_stack_the_running_mean_belongs_to_the_first_part(centred, graph, backend):
    norm, x, v = trained(centred=centred), random(*SHAPE, seed=5), random(*SHAPE, seed=6)
    with stacked(2), torch.set_grad_enabled(graph):
        out = norm(torch.cat([x, v]))
    assert torch.equal(out[:4], norm(x))
    torch.testing.assert_close(out[4:], norm(v) - norm(torch.zeros_like(v)))


def test_maps_through_a_centred_norm_are_refused_with_its_name():
    model, x = nn.Sequential(nn.Identity(), trained()), random(*SHAPE, seed=5)
    with pytest.raises(ValueError, match=r"1 \(BatchNorm2d, subtracts a running mean\)"):
        maps(model, x, x[None])


def test_explaining_in_training_is_refused_where_statistics_would_change():
    norm, x = BatchNorm2d(3).double(), random(*SHAPE)
    with explanation_mode(), pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        norm(x)
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        contributions(norm, x)
    assert int(norm.num_batches_tracked) == 0
    untracked = BatchNorm2d(3, track_running_stats=False).double()
    torch.testing.assert_close(contributions(untracked, x).double().sum(), untracked(x).sum())


def test_bad_inputs_are_refused():
    norm = BatchNorm2d(3)
    with pytest.raises(ValueError, match=r"expected \[N, 3, H, W\], got \[2, 4, 5, 5\]"):
        norm(torch.ones(2, 4, 5, 5))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 3, 1, 1))
    assert norm.eval()(torch.ones(0, 3, 2, 2)).shape == (0, 3, 2, 2)
    norm.running_var = torch.ones(4)
    with pytest.raises(ValueError, match=r"power must be \[3\], got \[4\]"):
        norm(torch.ones(2, 3, 2, 2))


def test_training_writes_running_statistics_where_autograd_notices():
    """A backward pass through the constants of an evaluation must not use those of a later training step."""
    norm, x = BatchNorm2d(3).eval(), torch.randn(4, 3, 5, 6)
    out = norm(x)
    norm.train()(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_running_statistics_of_any_type_and_layout():
    x, exact = random(*SHAPE).float() * 2 + 1, BatchNorm2d(3)
    exact(x)
    for dtype in (torch.float16, torch.float64):
        norm = BatchNorm2d(3).to(dtype)
        norm.running_mean, norm.running_var = (torch.full((3, 2), v, dtype=dtype)[:, 0] for v in (0.0, 1.0))
        norm(x)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(norm, name).float(), getattr(exact, name), rtol=1e-3, atol=1e-3)
