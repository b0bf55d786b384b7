"""The conversion itself: in place, complete, reversible, and described."""

import json

import pytest
import torch
from references.bcosify import classes
from torch import nn

from bcos_kernels import BcosConv2d, BcosLinear, Stem, bcosify, completeness, unbcosify


def test_modules_stay_who_they_are(net, x):
    modules, parameters = list(net.modules()), dict(net.named_parameters())
    keys, heard = list(net.state_dict()), []
    net.head.register_forward_hook(lambda *_: heard.append("forward"))
    net.features[0].register_full_backward_hook(lambda *_: heard.append("backward"))
    bcosify(net)
    assert list(net.modules()) == modules
    assert all(net.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert list(net.state_dict()) == keys
    assert net.features[1] is net.features[3]
    assert net.tied.weight is net.head.weight
    assert isinstance(net.head, BcosLinear) and isinstance(net.head, nn.Linear)
    assert isinstance(net.features[0], BcosConv2d) and isinstance(net.features[0], nn.Conv2d)
    net(x.requires_grad_()).sum().backward()
    assert heard == ["forward", "backward"]
    assert all(parameter.grad.isfinite().all() for parameter in parameters.values())
    assert "B=2, convention=B" in str(net)


def test_with_b_1_the_function_is_the_same(net, x):
    expected = net(x)
    bcosify(net, b=1)
    assert torch.allclose(net(x), expected, rtol=1e-13)
    bcosify(net, b=2)  # idempotent: it has been converted with B = 1
    assert torch.allclose(net(x), expected, rtol=1e-13)


@pytest.mark.parametrize("convention", ["A", "B", "C"])
@pytest.mark.parametrize("biases", ["keep", "remove"])
def test_the_budget_is_complete(net, x, convention, biases):
    report = bcosify(net, b=1.5, convention=convention, biases=biases)
    found = completeness(net, x)
    assert found.error < 1e-14
    assert abs(found.budget["rest"]) < 1e-12
    if biases == "remove":
        assert report.biases == () == report.constants
        assert list(found.mass) == ["input"]
    else:
        assert set(found.mass) == {"input", *report.biases, *report.constants}
        assert "features.1.layers.1.running_mean" in report.constants


def test_a_dry_run_changes_nothing_and_tells_the_same(net):
    before = classes(net)
    dry = bcosify(net, dry_run=True, biases="remove")
    assert classes(net) == before
    real = bcosify(net, biases="remove")
    assert dry.dry_run and not real.dry_run
    assert {**dry.as_dict(), "dry_run": False} == real.as_dict()


def test_the_report_reads_and_counts(net):
    net.extra = nn.Softplus()
    net.recurrent = nn.GRU(2, 2)
    report = bcosify(net, dry_run=True)
    text = str(report)
    assert "would convert 9 modules" in text
    assert "2  Linear → B-cos, B=2, convention B  (head, tied)" in text
    assert "NOT converted: 2" in text and "no rule for Softplus  (extra)" in text
    assert json.loads(json.dumps(report.as_dict()))["unconverted"] == report.unconverted
    assert report.converted["features.0"].was == "Conv2d"
    assert set(report.unchanged) == {"features.1.layers.1"}


def test_it_is_idempotent(net, x):
    first = bcosify(net)
    kinds, out = classes(net), net(x)
    second = bcosify(net)
    assert second.converted == {} and second.unconverted == {}
    assert set(first.converted) <= set(second.unchanged)
    assert classes(net) == kinds
    assert torch.equal(net(x), out)
    assert second.biases == first.biases


@pytest.mark.parametrize("biases", ["keep", "remove"])
def test_it_is_undone(net, x, biases):
    before, expected = classes(net), net(x)
    parameters = dict(net.named_parameters())
    attributes = {name: set(vars(module)) for name, module in net.named_modules()}
    report = bcosify(net, biases=biases)
    assert set(unbcosify(net)) == set(report.converted)
    assert classes(net) == before
    assert {name: set(vars(module)) for name, module in net.named_modules()} == attributes
    assert all(net.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert torch.equal(net(x), expected)
    assert unbcosify(net) == []


def test_a_removed_bias_comes_back_where_the_model_has_moved(net):
    bcosify(net, biases="remove")
    net.float()
    unbcosify(net)
    assert net.head.bias.dtype == torch.float32
    net(torch.randn(1, 3, 6, 6))


def test_a_stem_comes_back_as_training_left_it(x):
    conv = nn.Conv2d(3, 4, 3).double()
    weight = conv.weight
    model = nn.Sequential(conv)
    bcosify(model, stem=Stem())
    with torch.no_grad():
        conv.weight[:, :3] += 1
    expected = weight.detach() + 1
    unbcosify(model)
    assert conv.weight is weight and conv.in_channels == 3
    assert torch.allclose(weight, expected)


def test_patterns_choose(net):
    report = bcosify(net, include=["features*", "head"], exclude=["*.1*"])
    assert set(report.converted) == {"features.0", "features.2", "head", "features.1.act"} - {"features.1.act"}
    assert report.unchanged["norm"] == "excluded" == report.unchanged["features.1.act"]
    assert type(net.tied) is nn.Linear


def test_b_by_name_and_by_depth(net):
    bcosify(net, b={"features.0": 1.25, "head": 1.5, "*": 2})
    assert (net.features[0].b, net.features[1].layers[0].b, net.head.b, net.tied.b) == (1.25, 2, 1.5, 2)
    unbcosify(net)
    asked = []
    bcosify(net, b=lambda name, depth: asked.append(name) or 1 + depth)
    assert asked == ["features.0", "features.1.layers.0", "head", "tied"]
    assert (net.features[0].b, net.features[1].layers[0].b, net.tied.b) == (1, pytest.approx(4 / 3), 2)
    unbcosify(net)
    with pytest.raises(ValueError, match=r"b has no pattern for 'features.0'; end it with '\*'"):
        bcosify(net, b={"head": 2})
