"""Recorded relevance against contributions, and against outputs and gradients taken by hand."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn

from bcos_kernels import contributions, explanation_mode, maps, record_relevance, stacked
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.modules.conv import BcosConv2d
from bcos_kernels.modules.linear import BcosLinear

POINTWISE = {
    "linear": (lambda: BcosLinear(5, 7, b=1.5), (2, 3, 5), -1),
    "linear with MaxOut": (lambda: BcosLinear(5, 6, max_out=2, convention="C"), (4, 5), -1),
    "1x1": (lambda: BcosConv2d(6, 8, 1), (2, 6, 4, 3), 1),
    "1x1 in groups": (lambda: BcosConv2d(6, 8, 1, groups=2, max_out=2, b=2.5), (2, 6, 4, 3), 1),
}


class Barrier(torch.autograd.Function):
    """The identity, through which no backward pass may come."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("the backward pass went further than the first recorded layer")


@pytest.mark.parametrize("name", POINTWISE)
def test_positions_of_a_pointwise_layer_are_what_its_input_gave(name, backend):
    make, shape, channels = POINTWISE[name]
    torch.manual_seed(0)
    model, x = nn.Sequential(make(), nn.Tanh()).double(), torch.randn(shape, dtype=torch.double)
    with record_relevance(model) as record:
        given = contributions(model, x, lambda y: y.cos())
    (positions,) = record.positions["0"]
    assert torch.allclose(positions, given.sum(channels), atol=1e-12)
    assert positions.abs().max() > 1e-3


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "padding": "valid"}, {"padding_mode": "circular"}])
def test_all_that_passes_a_layer_is_what_its_input_gave(options, backend):
    torch.manual_seed(0)
    model, x = BcosConv2d(3, 4, 3, **options).double(), torch.randn(2, 3, 7, 6, dtype=torch.double)
    with record_relevance(model) as record:
        given = contributions(model, x, lambda y: y.sin())
        out = model(x)
        record.pull(out, out.detach().sin())
    first, pulled = record.positions[""]
    assert torch.equal(first, pulled)
    assert first.shape == (2, *out.shape[2:])
    assert torch.allclose(first.sum((1, 2)), given.sum((1, 2, 3)), atol=1e-12)


def test_every_layer_by_name(net, inputs, mask, backend):
    outputs = {}
    names = ["conv", "down", "attend", "attend.value", "attend.out", "linear"]
    with explanation_mode():
        hooks = [
            net.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: outputs.update({name: out}))
            for name in names
        ]
        out = net(**inputs, mask=mask)
        for hook in hooks:
            hook.remove()
        gradients = torch.autograd.grad(out, list(outputs.values()), torch.ones_like(out))
    with record_relevance(net) as record:
        record.pull(net(**inputs, mask=mask))
    assert list(record.positions) == names
    for name, gradient in zip(outputs, gradients, strict=True):
        (positions,) = record.positions[name]
        product = outputs[name] * gradient
        assert torch.allclose(positions, product.sum(1 if product.ndim == 4 else -1), atol=1e-12), name
    (heads,) = record.heads["attend"]
    by_head = (outputs["attend.value"] * gradients[list(outputs).index("attend.value")]).unflatten(2, (2, 3)).sum(3)
    assert heads.shape == (2, 2, 3)
    assert torch.allclose(heads, by_head.transpose(1, 2), atol=1e-12)
    assert torch.equal(heads.transpose(1, 2)[~mask], torch.zeros(3, 2, dtype=torch.double))
    assert not record.maps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_attention_by_head_token_and_pixel(dtype):
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 7, heads=2, head_dim=4).to(dtype).requires_grad_(False)
    x, context = torch.randn(3, 9, 6).to(dtype), torch.randn(3, 5, 7).to(dtype)
    shown = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    with record_relevance({"cross": attention}, attention_maps=True) as record:
        out = attention(x, context, key_mask=shown)
        record.pull(out, out.detach().sin())
    (positions,), (heads,), (pixels,) = record.positions["cross"], record.heads["cross"], record.maps["cross"]
    assert heads.dtype == pixels.dtype == positions.dtype == torch.promote_types(dtype, torch.float32)
    assert heads.shape == (3, 2, 5) and pixels.shape == (3, 9, 5) and positions.shape == (3, 9)
    assert not heads[2].any() and not pixels[1, :, 1].any()
    atol = 16 * torch.finfo(dtype).eps * float(positions.abs().max())
    assert torch.allclose(heads.sum(1), pixels.sum(1), atol=atol)
    assert torch.allclose(pixels.sum(2), positions, atol=atol)  # what a pixel passes on, its tokens gave
    assert heads[:2].abs().max() > 5 * atol


def test_recording_changes_no_bit(net, inputs, mask):
    plain = net(**inputs, mask=mask)
    given = contributions(net, inputs, constants={"mask": mask})
    with record_relevance(net):
        assert torch.equal(net(**inputs, mask=mask), plain)
        recorded = contributions(net, inputs, constants={"mask": mask})
    assert all(torch.equal(recorded[name], given[name]) for name in inputs)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_backward_pass_ends_at_the_first_recorded_layer(net, inputs, mask, frozen):
    for parameter in net.parameters():
        parameter.requires_grad_(not frozen)
    try:
        image = Barrier.apply(inputs["image"].clone().requires_grad_())
        with record_relevance(net, ["conv"]) as record:
            record.pull(net(image, inputs["text"], mask))
        assert len(record.positions["conv"]) == 1 and record.positions["conv"][0].any()
        text = Barrier.apply(inputs["text"].clone().requires_grad_())
        with record_relevance(net, ["attend"]) as record:
            record.pull(net(inputs["image"], text, mask))
        assert record.positions["attend"][0].any() and record.heads["attend"][0].any()
        assert all(parameter.grad is None for parameter in net.parameters())
    finally:
        net.requires_grad_(True)


def test_calls_and_cotangents_are_in_order():
    torch.manual_seed(0)
    layer, x = BcosLinear(4, 4).double(), torch.randn(2, 4, dtype=torch.double)
    g = torch.randn(3, 2, 4, dtype=torch.double)
    with record_relevance({"layer": layer}) as record:
        once = layer(x)
        record.pull(layer(once), g)
    first, second = record.positions["layer"][:3], record.positions["layer"][3:]
    assert len(second) == 3
    with explanation_mode():
        twice = layer(once)
    for i in range(3):
        assert torch.allclose(second[i], (twice * g[i]).sum(1), atol=1e-12)
        # The layer is linear while explained: the same passes both of its calls.
        assert torch.allclose(first[i], second[i], atol=1e-12)


def test_a_target_and_a_second_pull():
    torch.manual_seed(0)
    layer, x = BcosLinear(4, 3).double(), torch.randn(2, 4, dtype=torch.double)
    with record_relevance({"layer": layer}) as record:
        out = layer(x)
        record.pull(out, target=2, retain=True)
        record.pull(out, target=[0, 1])
    assert torch.allclose(torch.stack(record.positions["layer"], 1), out[:, [2, 0, 1]], atol=1e-12)


def test_blocks_nest(net, inputs, mask):
    with record_relevance(net, ["linear"]) as outer, record_relevance(net, ["linear", "attend"]) as inner:
        inner.pull(net(**inputs, mask=mask))
    assert torch.equal(outer.positions["linear"][0], inner.positions["linear"][0])
    assert len(inner.heads["attend"]) == 1


def test_relevance_can_be_differentiated(net, inputs, mask):
    text = inputs["text"].clone().requires_grad_()
    with record_relevance(net, ["attend"]) as record:
        out = net(inputs["image"], text, mask)
        torch.autograd.grad(out.sum(), text, create_graph=True)
    (heads,) = record.heads["attend"]
    (slope,) = torch.autograd.grad(heads.square().sum(), text)
    assert slope.isfinite().all() and slope[mask].any() and not slope[~mask].any()


def test_calls_of_other_threads_are_not_recorded():
    layer, x = BcosLinear(4, 3), torch.randn(2, 4)
    with record_relevance({"layer": layer}) as record:
        thread = threading.Thread(target=lambda: layer(x).sum().backward())
        thread.start()
        thread.join()
        assert record.positions["layer"] == []
        record.pull(layer(x))
    assert len(record.positions["layer"]) == 1


def test_a_record_keeps_no_graph():
    layer = BcosLinear(4, 3)
    with record_relevance({"layer": layer}) as record:
        out = layer(torch.randn(2, 4))
        node = weakref.ref(out.grad_fn)
        del out
        gc.collect()
        assert node() is None
    assert record.positions == {"layer": []}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda net, x: torch.no_grad()(net)(x), "layer '0' ran without a graph"),
        (lambda net, x: torch.inference_mode()(net)(x), "layer '0' ran without a graph"),
        (lambda net, x: maps(net, x, x[None]), "layer '0' ran in a stacked batch"),
        (lambda net, x: torch.func.vmap(net)(x[None]), "layer '0' cannot be recorded: a torch.func transform"),
    ],
)
def test_layers_that_cannot_be_recorded_say_so(run, message):
    net, x = nn.Sequential(BcosLinear(4, 3)), torch.randn(2, 4)
    with record_relevance(net), pytest.raises(ValueError, match=message):
        run(net, x)


def test_bad_layers_and_outputs_are_refused():
    net, x = nn.Sequential(BcosLinear(4, 3), nn.Linear(3, 2)), torch.randn(2, 4)
    for layers, message in ((["1"], "no layers to record: 1; a layer is one of .* here: 0"), (["x"], "record: x")):
        with pytest.raises(ValueError, match=message), record_relevance(net, layers):
            pass
    with pytest.raises(ValueError, match="no layer to record"), record_relevance(net[1]):
        pass
    with pytest.raises(ValueError, match="no layers to record: a"), record_relevance({"a": net[1]}):
        pass
    with record_relevance(net) as record:
        for other in (net[1](x[:, :3]), torch.ones(2)):
            with pytest.raises(ValueError, match="depends on no recorded layer"):
                record.pull(other)
        with pytest.raises(RuntimeError, match="modified inplace"):
            net[0](x).add_(1)


def test_a_stack_of_the_primal_alone_is_recorded():
    layer, x = BcosLinear(4, 3), torch.randn(2, 4)
    with record_relevance({"layer": layer}) as record, stacked(1):
        record.pull(layer(x))
    assert len(record.positions["layer"]) == 1
