"""What ``patch`` does to a model around its layers: reports, refusals, hooks, sharing, copies, compilers, switches."""

import copy
import io
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

pytest.importorskip("bcos.modules", reason="the package bcos is not installed: pip install '.[test]'")

import bcos
from bcos.modules import BcosConv2d, BcosLinear, BcosSequential, LogitLayer, norms

from bcos_kernels import completeness, contributions, explanation_mode, maps, patch, unpatch
from bcos_kernels.convert.stand_in import StandIn


def small():
    """A B-cos network of six-channel images, in evaluation, with every way to be held."""
    torch.manual_seed(0)
    net = BcosSequential(
        BcosConv2d(6, 8, 3, padding=1, b=1.5),
        norms.NoBias(norms.BatchNormUncentered2d)(8),
        nn.AvgPool2d(2),
        BcosConv2d(8, 8, 3, padding=1, max_out=2),
        norms.NoBias(norms.DetachablePositionNorm2d)(8),
        BcosConv2d(8, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        LogitLayer(logit_bias=-1.5),
    )
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


def image(dtype=torch.float32):
    return torch.rand(2, 6, 20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def gradient(model, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 2].sum(), leaf)[0]


def is_patched(model):
    return any(isinstance(module, StandIn) for module in model.modules())


def test_the_report_names_every_layer_and_reads_well():
    net = small()
    report = patch(net)
    assert report.replaced == {
        "0": "BcosConv2d",
        "1": "BatchNormUncentered2d",
        "3": "BcosConv2d",
        "4": "DetachablePositionNorm2d",
        "5": "BcosConv2d",
        "8": "LogitLayer",
    }
    assert str(report).startswith("6 layers replaced: 3 BcosConv2d, 1 BatchNormUncentered2d")
    again = patch(net)
    assert not again.replaced and again.already == report.replaced and "6 replaced before" in str(again)
    assert unpatch(net) == list(report.replaced) and unpatch(net) == [] and not is_patched(net)


@pytest.mark.parametrize("model", [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Identity()])
def test_a_model_without_layers_of_the_library_is_refused(model):
    with pytest.raises(ValueError, match="no layer of the package bcos"):
        patch(model)
    assert unpatch(model) == []


def test_what_is_no_module_is_refused():
    for function in (patch, unpatch):
        with pytest.raises(ValueError, match="Module, got function"):
            function(lambda x: x)


def test_bcos_is_imported_by_nobody_who_has_not():
    code = ("import sys, torch, bcos_kernels\ntry: bcos_kernels.patch(torch.nn.Linear(2, 2))\n"
            "except ValueError as error: print('no layer' in str(error), 'bcos' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_explain_gives_the_same_by_the_library_s_own_method():
    net, x = small(), image()[:1]
    theirs = net.explain(x.clone().requires_grad_(), idx=3)
    weights = theirs["dynamic_linear_weights"].clone()
    patch(net)
    ours = net.explain(x.clone().requires_grad_(), idx=3)
    assert ours.keys() == theirs.keys() and ours["prediction"] == theirs["prediction"]
    torch.testing.assert_close(ours["dynamic_linear_weights"], weights)
    torch.testing.assert_close(ours["contribution_map"], theirs["contribution_map"])
    torch.testing.assert_close(
        torch.tensor(ours["explanation"]), torch.tensor(theirs["explanation"]), rtol=1e-3, atol=1e-4
    )


def test_both_switches_hold_and_release():
    net, x = small().double(), image(torch.float64)
    usual, held = gradient(net, x), None
    with net.explanation_mode():
        held = gradient(net, x)
    assert not torch.allclose(usual, held)
    patch(net)
    for mode in (net.explanation_mode, explanation_mode, lambda: bcos.explanation_mode(net)):
        with mode():
            torch.testing.assert_close(gradient(net, x), held)
        torch.testing.assert_close(gradient(net, x), usual)
    for module in net.modules():
        if hasattr(module, "set_explanation_mode"):
            module.set_explanation_mode(True)
    torch.testing.assert_close(gradient(net, x), held)


def test_our_switch_is_that_of_a_thread_and_a_context_made_before_goes_on():
    net, x = small().double(), image(torch.float64)
    before = net.explanation_mode()  # has looked for its modules already
    with before:
        held = gradient(net, x)
    usual, seen = gradient(net, x), []
    patch(net)
    with before:
        torch.testing.assert_close(gradient(net, x), held)
    with explanation_mode():
        thread = threading.Thread(target=lambda: seen.append(gradient(net, x)))
        thread.start()
        thread.join()
    torch.testing.assert_close(seen[0], usual)


def test_our_explanations_work_on_a_patched_model():
    net, x = small().double(), image(torch.float64)
    with net.explanation_mode():
        expected = gradient(net, x) * x
    patch(net)
    torch.testing.assert_close(contributions(net, x, target=2), expected)
    logits = net[:-1]  # without the constant that the last layer adds, which is no linear map
    torch.testing.assert_close(maps(logits, x, torch.stack([x, x * 0.5])), torch.stack([logits(x), logits(x) / 2]))
    assert completeness(logits, x, target=2).error < 1e-12
    with pytest.raises(ValueError, match="not linear"):
        maps(net, x, x[None])


def test_hooks_on_layers_go_on_being_called():
    net, seen = small(), []
    net[0].register_forward_hook(lambda module, given, out: seen.append("forward"))
    net[0].register_full_backward_hook(lambda module, given, out: seen.append("backward"))
    net[1].register_forward_pre_hook(lambda module, given: seen.append("before"))
    assert not patch(net).left
    gradient(net, image())
    assert seen == ["forward", "before", "backward"]


def test_hooks_on_parts_that_ours_do_not_call_keep_a_layer_as_it_is():
    net, seen = small(), []
    handle = net[0].linear.register_forward_hook(lambda *_: seen.append(0))
    report = patch(net)
    assert list(report.left) == ["0"] and "hook" in report.left["0"] and "explain()" in str(report)
    net(image())
    assert seen == [0]
    handle.remove()
    assert list(patch(net).replaced) == ["0"]
    net[3].linear.register_forward_hook(lambda *_: seen.append(3))
    with pytest.raises(ValueError, match="would never be called"):
        net(image())


def test_shared_layers_and_weights_stay_shared():
    net, x = small(), image()
    net[3].linear.weight = nn.Parameter(net[3].linear.weight.detach().clone())
    shared = BcosConv2d(8, 8, 3, padding=1, max_out=2)
    shared.linear.weight = net[3].linear.weight
    both = nn.ModuleList([nn.Sequential(*net[:4], shared, net[3]), net])
    expected = [branch(x) for branch in both]
    patch(both)
    assert both[0][3] is both[1][3] is both[0][5] and shared.linear.weight is net[3].linear.weight
    for branch, value in zip(both, expected, strict=True):
        torch.testing.assert_close(branch(x), value)


def test_a_parametrized_weight_is_followed():
    net, x = small(), image()
    parametrizations.weight_norm(net[0].linear)
    expected, slope = net(x), gradient(net, x)
    assert not patch(net).left
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(gradient(net, x), slope)
    parametrizations.orthogonal(net[5].linear)  # since
    torch.testing.assert_close(net[5](torch.ones(1, 8, 2, 2)), BcosConv2d.forward_impl(net[5], torch.ones(1, 8, 2, 2)))
    unpatch(net)


def test_a_normed_layer_parametrized_when_patched_is_named_before_anything_goes_back():
    from bcos.modules.bcoslinear import NormedLinear

    net = nn.Sequential(BcosLinear(4, 4), NormedLinear(4, 4))
    patch(net)
    parametrizations.weight_norm(net[1])
    with pytest.raises(ValueError, match="1 was patched and then became"):
        unpatch(net)
    assert isinstance(net[0], StandIn)


class Own(BcosLinear):
    def forward(self, in_tensor):
        return super().forward(in_tensor) * 2


def test_layers_that_ours_would_not_equal_are_left_and_say_why():
    def bad_forward():
        layer = BcosLinear(4, 4)
        layer.forward = lambda x: x
        return layer

    def pruned():
        layer = BcosLinear(4, 4)
        prune.random_unstructured(layer.linear, "weight", 0.5)
        return layer

    def compiled():
        layer = BcosLinear(4, 4)
        layer.compile(backend="eager")
        return layer

    def biased():
        layer = BcosLinear(4, 4)
        layer.linear.bias = nn.Parameter(torch.ones(4))
        return layer

    def other_part():
        layer = BcosLinear(4, 4)
        layer.linear = nn.Linear(4, 4, bias=False)
        return layer

    layers = {
        "padding_mode='reflect'": BcosConv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        "finite number of at least 1": BcosLinear(4, 4, b=0.5),
        "a forward of its own": bad_forward(),
        "hook": pruned(),
        "patch first, then compile": compiled(),
        "a Own, whose forward": Own(4, 4),
        "has a bias": biased(),
        "is a Linear": other_part(),
    }
    net = nn.ModuleList(layers.values())
    kinds = [type(module) for module in net.modules()]
    report = patch(net)
    assert len(report.left) == len(layers) and not report.replaced
    for (reason, layer), said in zip(layers.items(), report.left.values(), strict=True):
        assert reason in said, (layer, said)
    assert [type(module) for module in net.modules()] == kinds


def test_torchscript_is_refused_and_named_where_it_is_a_part():
    traced = torch.jit.trace(small(), image())
    with pytest.raises(ValueError, match="TorchScript"):
        patch(traced)
    report = patch(nn.Sequential(traced, BcosConv2d(5, 4, 1)))
    assert list(report.replaced) == ["1"] and "0.0" in report.left


def test_a_compiled_model_is_patched_within():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    net, x = small(), image()
    compiled = torch.compile(net, backend=backend)
    expected, first = compiled(x), len(graphs)
    assert patch(compiled).replaced.keys() == {f"_orig_mod.{name}" for name in patch(net).already}
    torch.testing.assert_close(compiled(x), expected)
    assert len(graphs) > first  # it noticed
    unpatch(compiled)
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)


def test_a_patched_model_compiles_whole():
    torch._dynamo.reset()
    net, x = small(), image()
    patch(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))
    with net.explanation_mode():
        torch.testing.assert_close(gradient(compiled, x), gradient(net, x))


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_patched_and_go_back(copied):
    net, x = small(), image()
    expected = net(x)
    patch(net)
    if copied == "deepcopy":
        other = copy.deepcopy(net)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        torch.save(net, file := io.BytesIO())
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert len(unpatch(other)) == 6 and is_patched(net) and str(other) == str(small())
    torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


def test_models_on_the_meta_device_and_flags():
    with torch.device("meta"):
        net = small()
    net.train()
    net[0].requires_grad_(False)
    patch(net)
    assert net(image().to("meta")).shape == (2, 5) and net.training and not net[0].linear.weight.requires_grad
    net.to_empty(device="cpu").load_state_dict(small().state_dict())
    torch.testing.assert_close(net.eval()(image()), small()(image()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_before_and_after(dtype):
    one, other, truth = small().to(dtype), small(), small().double()
    patch(one)
    patch(other)
    other.to(dtype)
    x = image(dtype)
    torch.testing.assert_close(one(x), other(x), rtol=0, atol=0)
    error = (one(x).double() - truth(x.double())).norm()
    assert error <= 2 * (small().to(dtype)(x).double() - truth(x.double())).norm() + 1e-3


def test_a_residual_sum_in_place_follows_a_patched_norm():
    layer, x = norms.NoBias(norms.BatchNormUncentered2d)(6).eval(), image().requires_grad_()
    patch(layer)
    for mode in (True, False):
        out = layer.train(mode)(x)
        expected = torch.autograd.grad(out.sum() + x.sum(), x, retain_graph=True)[0]
        out += x
        torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], expected)
