"""contributions, maps and completeness against an explicit W(x) written out by hand in float64."""

import threading

import pytest
import torch
from torch import nn

from bcos_kernels.explanation import completeness, contributions, explanation_mode, is_explaining, maps, stacked


def flat(parts):
    return torch.cat([parts["image"].flatten(), parts["text"].flatten()])


def test_the_oracle_is_the_model_and_the_model_is_w_times_x(net, inputs, oracle, mask):
    output, w = oracle
    assert torch.allclose(net(**inputs, **{"mask": mask}), output, atol=1e-12)
    assert torch.allclose(w @ flat(inputs), output.flatten(), atol=1e-12)
    assert w.abs().max() > 0.1


def test_value_is_bit_identical_while_explaining(net, inputs, mask):
    plain = net(**inputs, **{"mask": mask})
    with explanation_mode():
        assert torch.equal(net(**inputs, **{"mask": mask}), plain)


def test_the_jacobian_while_explaining_is_the_oracle(net, inputs, oracle, mask):
    def model(image, text):
        with explanation_mode():
            return net(image, text, mask)

    parts = torch.autograd.functional.jacobian(model, tuple(inputs.values()))
    jacobian = torch.cat([part.reshape(oracle[0].numel(), -1) for part in parts], 1)
    assert torch.allclose(jacobian, oracle[1], atol=1e-12)


def test_contributions_are_x_times_wt_g(net, inputs, oracle, mask):
    output, w = oracle
    for cotangent in (None, torch.randn_like(output), torch.randn(7).double()):
        g = torch.ones_like(output) if cotangent is None else cotangent.expand_as(output)
        given = contributions(net, inputs, cotangent, constants={"mask": mask})
        assert list(given) == ["image", "text"]
        assert torch.allclose(flat(given), flat(inputs) * (w.T @ g.flatten()), atol=1e-12)
        assert torch.allclose(flat(given).sum(), (g * output).sum(), atol=1e-11)


def test_several_cotangents_from_one_forward(net, inputs, oracle, mask):
    output, w = oracle
    g = torch.randn(3, *output.shape, dtype=torch.double)
    given = contributions(net, inputs, g, constants={"mask": mask})
    for i in range(3):
        one = flat({name: part[i] for name, part in given.items()})
        assert torch.allclose(one, flat(inputs) * (w.T @ g[i].flatten()), atol=1e-12)


def test_a_function_of_the_output_as_cotangent(net, inputs, oracle, mask):
    given = contributions(net, inputs, lambda y: y - y.mean(), constants={"mask": mask})
    output, w = oracle
    assert torch.allclose(flat(given), flat(inputs) * (w.T @ (output - output.mean()).flatten()), atol=1e-12)


def test_sums_of_contributions_are_the_sums_of_all_of_them(net, inputs, oracle, mask, backend):
    g = torch.randn(3, *oracle[0].shape, dtype=torch.double)
    every = contributions(net, inputs, g, constants={"mask": mask})
    expected = {"image": every["image"].sum(2), "text": every["text"].sum(-1)}
    summed = contributions(net, inputs, g, constants={"mask": mask}, sum_over={"image": (1,), "text": (-1,)})
    for name, part in summed.items():
        assert torch.allclose(part, expected[name], atol=1e-12)
    one = contributions(net, inputs, g[0], constants={"mask": mask}, sum_over={"text": (1, 2)})
    assert torch.allclose(one["text"], every["text"][0].sum((1, 2)), atol=1e-12)
    assert torch.allclose(one["image"], every["image"][0], atol=1e-12)


def test_sums_of_half_contributions_are_float32():
    x = torch.randn(2, 3, 4).half()
    given = contributions(lambda x: x * 2, x, sum_over=(1, 2))
    assert given.dtype == torch.float32
    assert torch.allclose(given, (x.float() * 2).sum((1, 2)), atol=1e-5)


def test_targets_pick_classes(net, inputs, mask):
    def explain(target):
        return contributions(net, inputs, target=target, constants={"mask": mask})["image"]

    def by_hand(*classes):
        g = torch.zeros(2, 4, 7, dtype=torch.double)
        for n, chosen in enumerate(classes):
            g[n, chosen] = 1
        return contributions(net, inputs, g, constants={"mask": mask})["image"]

    assert torch.equal(explain(2), by_hand(2, 2))
    assert torch.equal(explain(torch.tensor([3, 1])), by_hand(3, 1))
    assert torch.equal(explain([0, 3]), torch.stack([by_hand(0, 0), by_hand(3, 3)]))
    assert not torch.allclose(explain(0), explain(3))


@pytest.mark.parametrize("method", ["stacked", "jvp"])
@pytest.mark.parametrize("chunk_size", [2, 16])
def test_maps_are_w_times_v(net, inputs, oracle, method, chunk_size, mask):
    _, w = oracle
    tangents = {name: torch.randn(5, *x.shape, dtype=torch.double) for name, x in inputs.items()}
    pushed = maps(net, inputs, tangents, constants={"mask": mask}, method=method, chunk_size=chunk_size)
    assert not pushed.requires_grad
    for i in range(5):
        v = flat({name: part[i] for name, part in tangents.items()})
        assert torch.allclose(pushed[i].flatten(), w @ v, atol=1e-11)


@pytest.mark.parametrize("method", ["stacked", "jvp"])
def test_backward_and_forward_are_adjoint(net, inputs, oracle, method, mask):
    g, v = torch.randn_like(oracle[0]), torch.randn_like(inputs["text"])
    pushed = maps(net, inputs, {"text": v[None]}, constants={"mask": mask}, method=method)[0]
    pulled = contributions(net, inputs, g, constants={"mask": mask})["text"] / inputs["text"]
    assert torch.allclose((g * pushed).sum(), (pulled * v).sum(), atol=1e-11)


@pytest.mark.parametrize("method", ["stacked", "jvp"])
def test_hidden_tokens_contribute_exactly_zero(net, inputs, method, mask):
    given = contributions(net, inputs, constants={"mask": mask})["text"]
    assert torch.equal(given[~mask], torch.zeros(3, 5).double())
    assert (given[mask].abs().sum(-1) > 0).all()
    only_hidden = (torch.randn_like(inputs["text"]) * ~mask[:, :, None])[None]
    pushed = maps(net, inputs, {"text": only_hidden}, constants={"mask": mask}, method=method)
    assert torch.equal(pushed, torch.zeros_like(pushed))


def test_tokens_and_image_add_up_to_the_output(net, inputs, oracle, mask):
    tokens = torch.stack([inputs["text"] * (torch.arange(3) == i)[:, None] for i in range(3)])
    parts = maps(net, inputs, {"text": tokens}, constants={"mask": mask}).sum(0)
    parts = parts + maps(net, inputs, {"image": inputs["image"][None]}, constants={"mask": mask})[0]
    assert torch.allclose(parts, oracle[0], atol=1e-11)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_model_is_left_alone(affine, inputs, frozen):
    model = affine.requires_grad_(not frozen)
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


def test_results_are_fresh(inputs, net, mask):
    first = contributions(net, inputs, constants={"mask": mask})
    kept = {name: part.clone() for name, part in first.items()}
    second = contributions(net, inputs, constants={"mask": mask})
    for name in inputs:
        second[name].zero_()
        assert torch.equal(first[name], kept[name])
        assert not first[name].requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: stacked(3)])
def test_works_in_any_context_of_the_caller(net, inputs, context, mask):
    tangents = {"text": torch.randn(2, *inputs["text"].shape).double()}
    expected = contributions(net, inputs, constants={"mask": mask})["text"]
    pushed = maps(net, inputs, tangents, constants={"mask": mask})
    with context():
        fresh = {name: x * 1 for name, x in inputs.items()}
        assert torch.equal(contributions(net, fresh, constants={"mask": mask})["text"], expected)
        assert torch.equal(maps(net, fresh, {"text": tangents["text"] * 1}, constants={"mask": mask}), pushed)
        assert completeness(net, fresh, constants={"mask": mask}).error < 1e-13


def test_threads_explain_while_others_do_not(net, inputs, mask):
    expected = contributions(net, inputs, constants={"mask": mask})["image"]
    leaf = inputs["image"].clone().requires_grad_()
    (free,) = torch.autograd.grad(net(leaf, inputs["text"], mask).sum(), leaf)
    wrong = []

    def explain():
        for _ in range(10):
            if not torch.equal(contributions(net, inputs, constants={"mask": mask})["image"], expected):
                wrong.append("explanation")

    def train():
        for _ in range(10):
            x = inputs["image"].clone().requires_grad_()
            if not torch.equal(torch.autograd.grad(net(x, inputs["text"], mask).sum(), x)[0], free):
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


def test_the_refusal_names_suspects_and_jvp_does_them_right(affine, inputs):
    model, x = affine, inputs["image"]
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
        (lambda: contributions(DOUBLE, IMAGE, sum_over=(2,)), r"different dimensions of x \[2, 3\]"),
        (lambda: contributions(DOUBLE, IMAGE, sum_over={"text": (1,)}), "unknown inputs: text; inputs: input"),
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
