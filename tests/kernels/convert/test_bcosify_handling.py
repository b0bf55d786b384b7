"""What a model may be: refused whole, or handled: copies, pickles, dtypes, devices, compiled later."""

import copy
import io
import pickle

import pytest
import torch
from references.bcosify import Net, classes
from torch import nn
from torch.nn.utils import parametrize

from bcos_kernels import BcosLinear, bcosify, completeness, record_relevance, unbcosify
from bcos_kernels.convert import bcosification
from bcos_kernels.convert.swap import Converted


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
    said = {"patched": "replaced"}.get(word, word)
    with pytest.raises(ValueError, match=rf"nothing was converted\. head.*: .*{said}"):
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
