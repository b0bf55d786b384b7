"""contributions, maps and completeness against an explicit W(x) written out by hand in float64."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels.explanation import completeness, contributions, explanation_mode, is_explaining, maps, stacked
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.modules.conv import BcosConv2d
from bcos_kernels.modules.gates import GEGLU, SiLU
from bcos_kernels.modules.linear import BcosLinear
from bcos_kernels.modules.norms import GroupNorm, LayerNorm

N, L, TEXT = 2, 3, 5


class Tiny(nn.Module):
    """Every kind of held factor once: an image and a prompt in, ``[N, 4, 7]`` out."""

    def __init__(self):
        super().__init__()
        self.conv = BcosConv2d(3, 4, 3, padding=1, b=2)
        self.group = GroupNorm(2, 4, centred=True)
        self.silu = SiLU()
        self.down = BcosConv2d(4, 6, 2, stride=2, b=1.5)
        self.attend = MultiHeadAttention(6, TEXT, heads=2, head_dim=3)
        self.layer = LayerNorm(6)
        self.linear = BcosLinear(6, 14, b=2.5)
        self.geglu = GEGLU()

    def forward(self, image, text, mask=None):
        h = self.down(self.silu(self.group(self.conv(image)))).flatten(2).transpose(1, 2)
        h = h + self.attend(h, text, text, mask)
        return self.geglu(self.linear(self.layer(h)))


def unit(weight):
    return weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


class WrittenOut:
    """Tiny as a function of (image, text) whose factors are numbers, recorded on the first call."""

    def __init__(self, net, mask):
        self.net, self.mask, self.factors, self.recording = net, mask, [], True

    def factor(self, value):
        if self.recording:
            self.factors.append(value)
        else:
            self.at += 1
        return self.factors[-1 if self.recording else self.at - 1]

    def bcos(self, y, norm, b):
        cos = y.abs() / norm
        return y * self.factor(cos if b == 2 else (cos + 1e-6) ** (b - 1))

    def conv(self, layer, x, b, **options):
        weight = layer.linear.weight
        squares = F.conv2d((x**2).sum(1, keepdim=True), torch.ones(1, 1, *weight.shape[2:]).double(), **options)
        return self.bcos(F.conv2d(x, unit(weight), **options), (squares + 1e-6).sqrt(), b)

    def dense(self, layer, x, b):
        return self.bcos(x @ unit(layer.linear.weight).T, x.norm(dim=-1, keepdim=True) + 1e-12, b)

    def attention(self, x, text):
        layer = self.net.attend
        q, k = x @ layer.query.weight.T, text @ layer.key.weight.T
        value, out = self.dense(layer.value, text, 2), []
        for part in (slice(0, 3), slice(3, 6)):
            logits = (q[..., part] @ k[..., part].transpose(1, 2) / 3**0.5).masked_fill(~self.mask[:, None], -torch.inf)
            out.append(self.factor(logits.softmax(-1)) @ value[..., part])
        return self.dense(layer.out, torch.cat(out, -1), 2)

    def __call__(self, image, text):
        net, self.at = self.net, 0
        h = self.conv(net.conv, image, 2, padding=1)
        groups = h.reshape(len(h), 2, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        h = (centred * self.factor(1 / (centred.var(-1, correction=0, keepdim=True) + 1e-6).sqrt())).view_as(h)
        h = h * net.group.weight.view(-1, 1, 1)
        h = h * self.factor(torch.sigmoid(h))
        h = self.conv(net.down, h, 1.5, stride=2).flatten(2).transpose(1, 2)
        h = h + self.attention(h, text)
        centred = h - h.mean(-1, keepdim=True)
        h = centred * self.factor(1 / (centred.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()) * net.layer.weight
        value, gate = self.dense(net.linear, h, 2.5).chunk(2, -1)
        self.recording, out = False, value * self.factor(F.gelu(gate))
        return out

    def matrix(self, image, text):
        """Return the output and W ``[outputs, inputs]``, one column per basis vector of (image, text)."""
        output = self(image, text)
        columns = []
        for i in range(image.numel() + text.numel()):
            basis = torch.zeros(image.numel() + text.numel(), dtype=torch.double)
            basis[i] = 1
            v, w = basis.split([image.numel(), text.numel()])
            columns.append(self(v.view_as(image), w.view_as(text)).flatten())
        return output, torch.stack(columns, 1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Tiny().double()
    for norm in (net.group, net.layer):
        nn.init.normal_(norm.weight, 1, 0.3)
    return net


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return {"image": torch.randn(N, 3, 4, 4).double(), "text": torch.randn(N, L, TEXT).double()}


MASK = torch.tensor([[True, True, False], [True, False, False]])
CONSTANTS = {"mask": MASK}


@pytest.fixture(scope="module")
def oracle(net, inputs):
    with torch.no_grad():
        return WrittenOut(net, MASK).matrix(**inputs)


def flat(parts):
    return torch.cat([parts["image"].flatten(), parts["text"].flatten()])


def test_the_oracle_is_the_model_and_the_model_is_w_times_x(net, inputs, oracle):
    output, w = oracle
    assert torch.allclose(net(**inputs, **CONSTANTS), output, atol=1e-12)
    assert torch.allclose(w @ flat(inputs), output.flatten(), atol=1e-12)
    assert w.abs().max() > 0.1


def test_value_is_bit_identical_while_explaining(net, inputs):
    plain = net(**inputs, **CONSTANTS)
    with explanation_mode():
        assert torch.equal(net(**inputs, **CONSTANTS), plain)


def test_the_jacobian_while_explaining_is_the_oracle(net, inputs, oracle):
    def model(image, text):
        with explanation_mode():
            return net(image, text, MASK)

    parts = torch.autograd.functional.jacobian(model, tuple(inputs.values()))
    jacobian = torch.cat([part.reshape(oracle[0].numel(), -1) for part in parts], 1)
    assert torch.allclose(jacobian, oracle[1], atol=1e-12)


def test_contributions_are_x_times_wt_g(net, inputs, oracle):
    output, w = oracle
    for cotangent in (None, torch.randn_like(output), torch.randn(7).double()):
        g = torch.ones_like(output) if cotangent is None else cotangent.expand_as(output)
        given = contributions(net, inputs, cotangent, constants=CONSTANTS)
        assert list(given) == ["image", "text"]
        assert torch.allclose(flat(given), flat(inputs) * (w.T @ g.flatten()), atol=1e-12)
        assert torch.allclose(flat(given).sum(), (g * output).sum(), atol=1e-11)


def test_several_cotangents_from_one_forward(net, inputs, oracle):
    output, w = oracle
    g = torch.randn(3, *output.shape, dtype=torch.double)
    given = contributions(net, inputs, g, constants=CONSTANTS)
    for i in range(3):
        one = flat({name: part[i] for name, part in given.items()})
        assert torch.allclose(one, flat(inputs) * (w.T @ g[i].flatten()), atol=1e-12)


def test_a_function_of_the_output_as_cotangent(net, inputs, oracle):
    given = contributions(net, inputs, lambda y: y - y.mean(), constants=CONSTANTS)
    output, w = oracle
    assert torch.allclose(flat(given), flat(inputs) * (w.T @ (output - output.mean()).flatten()), atol=1e-12)


def test_targets_pick_classes(net, inputs):
    def explain(target):
        return contributions(net, inputs, target=target, constants=CONSTANTS)["image"]

    def by_hand(*classes):
        g = torch.zeros(N, 4, 7, dtype=torch.double)
        for n, chosen in enumerate(classes):
            g[n, chosen] = 1
        return contributions(net, inputs, g, constants=CONSTANTS)["image"]

    assert torch.equal(explain(2), by_hand(2, 2))
    assert torch.equal(explain(torch.tensor([3, 1])), by_hand(3, 1))
    assert torch.equal(explain([0, 3]), torch.stack([by_hand(0, 0), by_hand(3, 3)]))
    assert not torch.allclose(explain(0), explain(3))


@pytest.mark.parametrize("method", ["stacked", "jvp"])
@pytest.mark.parametrize("chunk_size", [2, 16])
def test_maps_are_w_times_v(net, inputs, oracle, method, chunk_size):
    output, w = oracle
    tangents = {name: torch.randn(5, *x.shape, dtype=torch.double) for name, x in inputs.items()}
    pushed = maps(net, inputs, tangents, constants=CONSTANTS, method=method, chunk_size=chunk_size)
    assert not pushed.requires_grad
    for i in range(5):
        v = flat({name: part[i] for name, part in tangents.items()})
        assert torch.allclose(pushed[i].flatten(), w @ v, atol=1e-11)


@pytest.mark.parametrize("method", ["stacked", "jvp"])
def test_backward_and_forward_are_adjoint(net, inputs, oracle, method):
    g, v = torch.randn_like(oracle[0]), torch.randn_like(inputs["text"])
    pushed = maps(net, inputs, {"text": v[None]}, constants=CONSTANTS, method=method)[0]
    pulled = contributions(net, inputs, g, constants=CONSTANTS)["text"] / inputs["text"]
    assert torch.allclose((g * pushed).sum(), (pulled * v).sum(), atol=1e-11)


@pytest.mark.parametrize("method", ["stacked", "jvp"])
def test_hidden_tokens_contribute_exactly_zero(net, inputs, method):
    given = contributions(net, inputs, constants=CONSTANTS)["text"]
    assert torch.equal(given[~MASK], torch.zeros(3, TEXT).double())
    assert (given[MASK].abs().sum(-1) > 0).all()
    only_hidden = (torch.randn_like(inputs["text"]) * ~MASK[:, :, None])[None]
    pushed = maps(net, inputs, {"text": only_hidden}, constants=CONSTANTS, method=method)
    assert torch.equal(pushed, torch.zeros_like(pushed))


def test_tokens_and_image_add_up_to_the_output(net, inputs, oracle):
    tokens = torch.stack([inputs["text"] * (torch.arange(L) == i)[:, None] for i in range(L)])
    parts = maps(net, inputs, {"text": tokens}, constants=CONSTANTS).sum(0)
    parts = parts + maps(net, inputs, {"image": inputs["image"][None]}, constants=CONSTANTS)[0]
    assert torch.allclose(parts, oracle[0], atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_completeness_in_every_dtype(inputs, dtype):
    torch.manual_seed(0)
    net = Tiny().to(dtype)
    found = completeness(net, {name: x.to(dtype) for name, x in inputs.items()}, constants=CONSTANTS)
    assert found.output.dtype == dtype
    assert found.error <= 20 * torch.finfo(dtype).eps
    assert list(found.mass) == ["image", "text"]
    assert found.budget["rest"] == pytest.approx(0, abs=200 * torch.finfo(dtype).eps)
    assert sum(found.budget.values()) == pytest.approx(1)
    assert "image" in str(found)


def affine():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 5)
    ).double()  # fmt: skip
    model(torch.randn(8, 3, 4, 4).double())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def test_every_bias_is_reported_under_its_own_name(inputs):
    model, x = affine(), inputs["image"]
    found = completeness(model, x, target=2)
    assert found.error < 1e-14
    assert list(found.mass) == ["input", "0.bias", "1.bias", "5.bias", "1.running_mean"]
    assert all(abs(value) > 1e-3 for value in found.mass.values())
    assert found.budget["rest"] == pytest.approx(0, abs=1e-12)
    # Independently: what a bias gives is what is lost without it, while the factors stay those of the full model.
    assert found.mass["5.bias"] == pytest.approx(N * model[5].bias[2].item())
    on = (model[:3](x) > 0).double()
    path = (on * model[1].bias.view(-1, 1, 1)).detach()
    full = model[:3](x)
    picked = path.flatten(2).gather(2, F.max_pool2d(full, 2, return_indices=True)[1].flatten(2)).flatten(1)
    assert found.mass["1.bias"] == pytest.approx(float((picked @ model[5].weight[2]).sum().detach()))


def test_completeness_says_by_how_much_it_fails(inputs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 6, bias=False), nn.GELU()).double()
    found = completeness(model, inputs["image"])
    output = model(inputs["image"]).detach()
    derivative = torch.func.jvp(model, (inputs["image"],), (inputs["image"],))[1].detach()
    assert found.error == pytest.approx(float((output - derivative).norm() / output.norm()))
    assert found.budget["rest"] == pytest.approx(float(1 - derivative.sum() / output.sum()))
    assert found.error > 0.01


def test_a_position_embedding_can_be_named(inputs):
    class Positioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.randn(L, TEXT).double())
            self.linear = BcosLinear(TEXT, 4).double()

        def forward(self, x):
            return self.linear(x + self.position)

    model = Positioned()
    assert completeness(model, inputs["text"]).error > 0.01
    found = completeness(model, inputs["text"], offsets=["position"])
    assert found.error < 1e-14
    assert abs(found.budget["position"]) > 0.01
    with pytest.raises(ValueError, match="no parameter of the model: nowhere"):
        completeness(model, inputs["text"], offsets=["nowhere"])


@pytest.mark.parametrize("frozen", [True, False])
def test_the_model_is_left_alone(inputs, frozen):
    model = affine().requires_grad_(not frozen)
    parameters = list(model.parameters())
    kept = [p.clone() for p in parameters]
    marks = [torch.randn_like(p) for p in parameters]
    for p, mark in zip(parameters, marks, strict=True):
        p.grad = mark
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    x = inputs["image"].clone().requires_grad_()
    contributions(model, x)
    completeness(model, x)
    maps(model, x, torch.randn(2, *x.shape).double(), method="jvp")
    assert x.grad is None
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    for p, value, mark in zip(parameters, kept, marks, strict=True):
        assert p.grad is mark
        assert p.requires_grad is not frozen
        assert torch.equal(p, value)
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert not is_explaining()


def test_results_are_fresh(inputs, net):
    first = contributions(net, inputs, constants=CONSTANTS)
    kept = {name: part.clone() for name, part in first.items()}
    second = contributions(net, inputs, constants=CONSTANTS)
    for name in inputs:
        second[name].zero_()
        assert torch.equal(first[name], kept[name])
        assert not first[name].requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: stacked(3)])
def test_works_in_any_context_of_the_caller(net, inputs, context):
    tangents = {"text": torch.randn(2, N, L, TEXT).double()}
    expected = contributions(net, inputs, constants=CONSTANTS)["text"]
    pushed = maps(net, inputs, tangents, constants=CONSTANTS)
    with context():
        fresh = {name: x * 1 for name, x in inputs.items()}
        assert torch.equal(contributions(net, fresh, constants=CONSTANTS)["text"], expected)
        assert torch.equal(maps(net, fresh, {"text": tangents["text"] * 1}, constants=CONSTANTS), pushed)
        assert completeness(net, fresh, constants=CONSTANTS).error < 1e-13


def test_threads_explain_while_others_do_not(net, inputs):
    expected = contributions(net, inputs, constants=CONSTANTS)["image"]
    leaf = inputs["image"].clone().requires_grad_()
    (free,) = torch.autograd.grad(net(leaf, inputs["text"], MASK).sum(), leaf)
    wrong = []

    def explain():
        for _ in range(10):
            if not torch.equal(contributions(net, inputs, constants=CONSTANTS)["image"], expected):
                wrong.append("explanation")

    def train():
        for _ in range(10):
            x = inputs["image"].clone().requires_grad_()
            if not torch.equal(torch.autograd.grad(net(x, inputs["text"], MASK).sum(), x)[0], free):
                wrong.append("training")

    threads = [threading.Thread(target=f) for f in (explain, train, explain, train)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not torch.allclose(free * leaf, expected)


def test_an_input_that_does_not_matter_gives_zero():
    given = contributions(lambda a, b: a * 2, {"a": torch.ones(2), "b": torch.ones(3)})
    assert torch.equal(given["a"], torch.full((2,), 2.0))
    assert torch.equal(given["b"], torch.zeros(3))
    assert torch.equal(contributions(lambda x: torch.ones(3), torch.ones(2)), torch.zeros(2))
    with pytest.raises(ValueError, match="exactly 0"):
        completeness(lambda x: x * 0, torch.ones(2)).budget  # noqa: B018


@pytest.mark.parametrize(
    "model",
    [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.GELU()),
        nn.GroupNorm(1, 3),
        nn.Dropout(0.5),
        nn.MaxPool2d(2),
        lambda x: x * x.abs() / x.norm(),
        lambda x: x + 0.01,
    ],
    ids=["bias", "relu", "gelu", "norm", "dropout", "pool", "unheld b-cos", "offset"],
)
def test_a_stack_refuses_what_is_not_linear_across_it(model):
    x, v = torch.randn(2, 3, 6, 6), torch.randn(1, 2, 3, 6, 6)
    with pytest.raises(ValueError, match=r"not linear across a stacked batch.*method='jvp'"):
        maps(model, x, v)


def test_the_refusal_names_suspects_and_jvp_does_them_right(inputs):
    model, x = affine(), inputs["image"]
    v = torch.randn(3, *x.shape, dtype=torch.double)
    with pytest.raises(ValueError, match=r"0 \(Conv2d, has a bias\), .*2 \(ReLU, not held\)"):
        maps(model, x, v)
    pushed = maps(model, x, v, method="jvp")
    step = 1e-7
    for i in range(3):
        difference = (model(x + step * v[i]) - model(x - step * v[i])) / (2 * step)
        assert torch.allclose(pushed[i], difference.detach(), atol=1e-6)


IMAGE = torch.randn(2, 3)
DOUBLE = nn.Linear(3, 4, bias=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contributions(DOUBLE, {}), "inputs is empty"),
        (lambda: contributions(DOUBLE, torch.ones(2, 3, dtype=torch.long)), "floating tensor, got torch.int64"),
        (lambda: contributions(DOUBLE, {"input": None}), "floating tensor, got NoneType"),
        (lambda: contributions(DOUBLE, {"input": IMAGE}, constants={"input": 1}), "both as input and as constant"),
        (lambda: contributions(lambda x: (x, x), IMAGE), "must return one floating tensor, got tuple"),
        (lambda: contributions(DOUBLE, IMAGE, torch.ones(5)), r"cotangent \[5\] does not fit the output \[2, 4\]"),
        (lambda: contributions(DOUBLE, IMAGE, torch.ones(2, 4), target=1), "not both"),
        (lambda: contributions(DOUBLE, IMAGE, lambda y: 1), "function that returns one, got int"),
        (lambda: contributions(DOUBLE, IMAGE, target=4), r"in \[0, 3\], got 4"),
        (lambda: contributions(DOUBLE, IMAGE, target=-1), r"in \[0, 3\], got -1"),
        (lambda: contributions(DOUBLE, IMAGE, target="cat"), "a class, a sequence of classes"),
        (lambda: contributions(DOUBLE, IMAGE, target=[]), "a class, a sequence of classes"),
        (lambda: contributions(DOUBLE, IMAGE, target=torch.tensor([1])), r"int64 \[2\], one class a sample"),
        (lambda: contributions(DOUBLE, IMAGE[0], target=0), r"output must be \[N, classes, \*\], got \[4\]"),
        (lambda: contributions(nn.BatchNorm1d(3), IMAGE), "call model.eval"),
        (lambda: completeness(DOUBLE, IMAGE, target=[0, 1]), "one cotangent or target, got several"),
        (lambda: completeness(lambda x: x, IMAGE, offsets=["a"]), "must be an nn.Module"),
        (lambda: maps(DOUBLE, IMAGE, IMAGE), r"must be \[T, 2, 3\]"),
        (lambda: maps(DOUBLE, IMAGE, IMAGE[None].double()), "got .* torch.float64"),
        (lambda: maps(DOUBLE, IMAGE, IMAGE[None][:0]), "one T of at least 1"),
        (lambda: maps(DOUBLE, IMAGE, {"other": IMAGE[None]}), "unknown inputs: other"),
        (lambda: maps(DOUBLE, IMAGE, IMAGE[None], method="magic"), "method must be one of"),
        (lambda: maps(DOUBLE, IMAGE, IMAGE[None], chunk_size=0), "chunk_size must be at least 1"),
        (lambda: maps(lambda x: x.sum(), IMAGE, IMAGE[None]), "keep the batch in dimension 0"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
