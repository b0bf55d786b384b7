"""BcosAttribution against the full Jacobian, and in captum's own metrics."""

import sys

import pytest
import torch
from references.classifier import N, jacobian
from torch import nn

captum_attr = pytest.importorskip("captum.attr")
captum_metrics = pytest.importorskip("captum.metrics")

from bcos_kernels import BcosLinear, explain, is_explaining  # noqa: E402
from bcos_kernels.attribution.captum import BcosAttribution  # noqa: E402

PER_IMAGE = [4, 0, 2]


@pytest.mark.parametrize("target", [3, torch.tensor(3), PER_IMAGE, torch.tensor(PER_IMAGE), (3,)], ids=str)
def test_targets_as_captum_means_them(net, images, target):
    found = BcosAttribution(net).attribute(images, target)
    picked = PER_IMAGE if torch.as_tensor(target).numel() == N else [3] * N
    truth = jacobian(net, images)[torch.arange(N), picked] * images
    torch.testing.assert_close(found, truth)
    assert not found.requires_grad and not images.requires_grad and not is_explaining()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_dtype_agrees_with_explain(net, images, dtype):
    net, x = net.to(dtype), images.to(dtype)
    found = BcosAttribution(net).attribute(x, PER_IMAGE)
    assert found.dtype == dtype
    maps = explain(net, x, torch.tensor(PER_IMAGE)).contribution_maps
    eps = torch.finfo(dtype).eps
    assert float((found.to(maps.dtype).sum(1) - maps).norm()) <= 2 * eps * float(found.abs().sum(1).to(maps).norm())


class Two(nn.Module):
    """Two inputs, arguments that are not explained, and an output of two dimensions a sample."""

    def __init__(self):
        super().__init__()
        self.first, self.second = BcosLinear(4, 3), BcosLinear(6, 3)

    def forward(self, a, b, factor, exponent=1):
        out = (self.first(a) + self.second(b)) * factor[:, None] ** exponent
        return out[:, :, None].expand(-1, -1, 2)


def test_tuples_of_inputs_and_further_arguments():
    torch.manual_seed(0)
    model, a, b, factor = Two().double(), torch.randn(5, 4).double(), torch.randn(5, 6).double(), torch.rand(5).double()
    attribution = BcosAttribution(model)
    found = attribution.attribute((a, b), target=(2, 1), additional_forward_args=(factor, 2))
    assert isinstance(found, tuple) and [part.shape for part in found] == [a.shape, b.shape]
    for layer, x, part in [(model.first, a, found[0]), (model.second, b, found[1])]:
        row = layer.linear.weight[2] / layer.linear.weight[2].norm()
        held = (x @ row).abs() / x.norm(dim=1) * factor**2
        torch.testing.assert_close(part, x * row * held[:, None])
    total = sum(part.sum(1) for part in found)
    torch.testing.assert_close(total, model(a, b, factor, 2)[:, 2, 1])
    tuples = [(0, 1), (1, 0), (2, 1), (0, 0), (1, 1)]
    several = attribution.attribute((a, b), tuples, (factor,))
    assert torch.equal(several[0][2], attribution.attribute((a, b), (2, 1), (factor,))[0][2])
    lone = attribution.attribute((a,), (2, 1), (b, factor))
    assert isinstance(lone, tuple) and len(lone) == 1


def test_convergence_delta_as_captum_defines_it(net, images):
    attribution = BcosAttribution(net)
    assert attribution.has_convergence_delta() and attribution.multiplies_by_inputs
    assert isinstance(attribution, captum_attr.Attribution)
    found, delta = attribution.attribute(images, PER_IMAGE, return_convergence_delta=True)
    assert delta.shape == (N,) and float(delta.abs().max()) < 1e-12  # the logit bias is there at the start too
    moved = attribution.compute_convergence_delta(2 * found, 0, images, target=PER_IMAGE)
    torch.testing.assert_close(moved, found.flatten(1).sum(1))
    integrated = captum_attr.IntegratedGradients(net)
    theirs = integrated.compute_convergence_delta(2 * found, 0, images, target=PER_IMAGE)
    torch.testing.assert_close(moved, theirs)


def test_is_input_times_gradient_only_while_explaining(net, images):
    plain = captum_attr.InputXGradient(net).attribute(images, 1)
    found = BcosAttribution(net).attribute(images, 1)
    assert float((plain.detach() - found).norm() / found.norm()) > 0.1


def test_a_model_with_switches_of_its_own(images):
    class Switched(nn.Module):
        detach = False

        def set_explanation_mode(self, on=True):
            self.detach = on

        def forward(self, x):
            return (x * (x.detach() if self.detach else x)).sum((2, 3))

    model = Switched()
    torch.testing.assert_close(BcosAttribution(model).attribute(images, 2).sum((1, 2, 3)), model(images)[:, 2])
    assert not model.detach


def test_inference_mode(net, images):
    with torch.inference_mode():
        inside = BcosAttribution(net).attribute(images.clone(), 1)
    assert torch.equal(inside, BcosAttribution(net).attribute(images, 1))


def test_wrong_targets_are_captums_to_refuse(net, images):
    with pytest.raises(AssertionError):
        BcosAttribution(net).attribute(images)  # logits of all classes are no scalar a sample
    with pytest.raises(AssertionError):
        BcosAttribution(net).attribute(images, [0, 1])
    assert not is_explaining()


def test_captums_infidelity(net, images):
    net.norm = nn.Identity()  # B-cos layers alone are homogeneous: what is dimmed gives that much less

    @captum_metrics.infidelity_perturb_func_decorator(True)
    def dimmed(inputs):
        return inputs * torch.rand(len(inputs), 1, 1, 1).to(inputs)

    torch.manual_seed(0)
    found = BcosAttribution(net).attribute(images, PER_IMAGE)
    options = {"target": PER_IMAGE, "n_perturb_samples": 5}
    exact = captum_metrics.infidelity(net, dimmed, images, found, **options)
    wrong = captum_metrics.infidelity(net, dimmed, images, 1.1 * found, **options)
    assert exact.shape == (N,) and (exact < 1e-3 * wrong).all()


def test_captums_sensitivity(net, images):
    attribution = BcosAttribution(net)
    options = {"target": PER_IMAGE, "n_perturb_samples": 4}
    torch.manual_seed(0)
    near = captum_metrics.sensitivity_max(attribution.attribute, images, perturb_radius=1e-4, **options)
    far = captum_metrics.sensitivity_max(attribution.attribute, images, perturb_radius=0.1, **options)
    assert near.shape == (N,) and (near > 0).all() and (near < 0.1 * far).all()


def test_without_captum_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.delitem(sys.modules, "bcos_kernels.attribution.captum")
    with pytest.raises(ImportError, match="pip install captum"):
        import bcos_kernels.attribution.captum  # noqa: F401
