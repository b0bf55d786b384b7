"""The conversion itself: in place, whole or not at all, reversible, and described."""

import copy
import io
import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from bcos_kernels import BcosConv2d, BcosLinear, bcosify, completeness, record_relevance, unbcosify
from bcos_kernels.convert import bcosification
from bcos_kernels.convert.swap import Converted


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)])
        self.act = nn.SiLU()

    def forward(self, x):
        for layer in self.layers:
            x = self.act(layer(x))
        return x


class Net(nn.Module):
    """Containers, a shared module, a shared weight and a forward of its own."""

    def __init__(self):
        super().__init__()
        block = Block()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), block, nn.MaxPool2d(2), block)
        self.norm = nn.LayerNorm(16)
        self.head, self.tied = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.tied.weight = self.head.weight

    def forward(self, x):
        return self.tied(self.head(self.norm(self.features(x).flatten(1))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.2, 0.5)
    return net


@pytest.fixture
def x():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()


def classes(model):
    return {name: type(module) for name, module in model.named_modules()}


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
    net(x).sum().backward()
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
    from bcos_kernels import Stem

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


@pytest.mark.parametrize(
    "options, message",
    [
        ({"b": 0.5}, "b must be a number of at least 1"),
        ({"convention": "D"}, "convention must be one of"),
        ({"biases": "zero"}, "biases must be one of"),
        ({"max_pool": "min"}, "max_pool must be one of"),
        ({"exclude": ["classifier*"]}, "no module is named like 'classifier"),
        ({"include": "head"}, "not the string 'head'"),
        ({"constants": ["time"]}, "no module is named like 'time'"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_converted(net, options, message):
    before = classes(net)
    with pytest.raises(ValueError, match=message):
        bcosify(net, **options)
    assert classes(net) == before


def compiled(net):
    net.head.compile(backend="eager")


def parametrized(net):
    parametrize.register_parametrization(net.head, "weight", nn.Identity())


def patched(net):
    net.head.forward = net.head.forward


def lazy(net):
    net.head = nn.LazyLinear(4)


def scripted(net):
    net.head = torch.jit.script(nn.Linear(16, 16))


def traced(net):
    net.head = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(16, 16)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("break_it", [compiled, parametrized, patched, lazy, scripted, traced])
def test_what_cannot_be_converted_is_refused_whole(net, break_it):
    break_it(net)
    before, word = classes(net), break_it.__name__
    with pytest.raises(ValueError, match=f"nothing was converted. head.*: .*{'replaced' if word == 'patched' else word}"):
        bcosify(net)
    assert classes(net) == before
    dry = bcosify(net, dry_run=True)
    assert set(dry.refused) == {"head"} or word in ("traced", "scripted", "parametrized")
    assert "REFUSED" in str(dry)
    bcosify(net, exclude=["head*"])
    assert isinstance(net.tied, BcosLinear)


def test_a_compiled_model_is_refused(net):
    with pytest.raises(ValueError, match="convert the model first, then compile it"):
        bcosify(torch.compile(net))
    assert not any(isinstance(module, Converted) for module in net.modules())


def test_a_failure_half_way_leaves_nothing_converted(net, monkeypatch):
    before, swap, calls = classes(net), bcosification.swap, []

    def fails(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        swap(*args)

    monkeypatch.setattr(bcosification, "swap", fails)
    with pytest.raises(KeyboardInterrupt):
        bcosify(net)
    assert classes(net) == before


def test_old_style_weight_norm_keeps_working():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Linear(4, 3))
    x = torch.randn(2, 4)
    expected = layer(x)
    bcosify(layer, b=1)
    assert torch.allclose(layer(x), expected)


def test_copies_and_pickles_are_converted_too(net, x):
    bcosify(net, biases="remove")
    expected = net(x)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(file, weights_only=False)):
        assert classes(other) == classes(net)
        assert torch.equal(other(x), expected)
        assert completeness(other, x).error < 1e-14
        unbcosify(other)
        assert type(other.head) is nn.Linear
        assert other.head.bias is not None and other.head.bias is not net.head.bias
    assert isinstance(net.head, BcosLinear)


def test_a_state_dict_loads_both_ways(net, x):
    plain = copy.deepcopy(net)
    bcosify(net, b=1)
    plain.load_state_dict(net.state_dict())
    net.load_state_dict(plain.state_dict())
    assert torch.allclose(net(x), plain(x))


def test_on_the_meta_device():
    with torch.device("meta"):
        net = Net()
    report = bcosify(net, biases="remove")
    assert len(report.converted) == 10
    assert net(torch.empty(2, 3, 6, 6, device="meta")).shape == (2, 16)
    unbcosify(net)
    assert type(net.head) is nn.Linear


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision(net, x, dtype):
    net.to(dtype)
    x = x.to(dtype)
    expected = net(x)
    bcosify(net, b=1)
    assert net(x).dtype == dtype
    assert torch.allclose(net(x), expected, rtol=20 * torch.finfo(dtype).eps, atol=20 * torch.finfo(dtype).eps)
    found = completeness(net, x)
    assert found.output.dtype == dtype
    assert found.error < 20 * torch.finfo(dtype).eps


def test_under_autocast(net, x):
    net.float()
    bcosify(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x.float()).isfinite().all()
        assert net.head(torch.randn(2, 16)).dtype == torch.bfloat16


def test_it_compiles_afterwards(net, x):
    bcosify(net)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), net(x))


def test_training_goes_on(net, x):
    net.train()
    bcosify(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (net(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    net.eval()
    assert completeness(net, x).error < 1e-14


def test_relevance_of_converted_layers_is_recorded(net, x):
    bcosify(net)
    with record_relevance(net, ["head"]) as record:
        out = net(x)
        record.pull(out)
    head = net.head(net.norm(net.features(x).flatten(1))).detach()
    scale = (head @ net.tied.weight.T).abs() / head.norm(dim=-1, keepdim=True)
    assert torch.allclose(record.positions["head"][0], (head * (scale @ net.tied.weight)).sum(-1))


def test_a_single_layer_is_converted_in_place():
    layer = nn.Linear(3, 2)
    assert list(bcosify(layer).converted) == [""]
    assert isinstance(layer, BcosLinear)


def test_what_no_rule_covers_is_said():
    model = nn.Sequential(
        nn.Softplus(), nn.LPPool2d(2, 2), nn.Hardtanh(0.5, 1), nn.InstanceNorm2d(4, track_running_stats=True),
        nn.BatchNorm2d(4, track_running_stats=False), nn.ConvTranspose2d(4, 4, 2), nn.MaxPool2d(2, dilation=2),
        nn.Bilinear(2, 2, 2), nn.LocalResponseNorm(2), nn.Dropout(), nn.Identity(), nn.AvgPool2d(2), nn.Conv3d(2, 2, 1),
        nn.SyncBatchNorm(4),
    )  # fmt: skip
    report = bcosify(model, max_pool="average", biases="remove")
    assert set(report.unconverted) == {"0", "1", "2", "3", "4", "6", "7", "8", "13"}
    assert report.converted["5"].became == "linear as before, without its bias"
    assert set(report.converted) == {"5", "12"}
    assert model[5].bias is None
    unbcosify(model)
    assert model[5].bias is not None
    kept = bcosify(model)
    assert kept.unchanged["5"] == "linear as it is; no B-cos layer of this kind"
    assert set(kept.converted) == {"6"}
