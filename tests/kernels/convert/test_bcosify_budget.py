"""Constants in the budget: biases, embeddings, subtracted means, each under its own name and with the right amount."""

import pytest
import torch
from torch import nn

from bcos_kernels import Stem, bcosify, completeness, contributions, explanation_mode, six_channels
from bcos_kernels.constants import collecting, constant


class Conditioned(nn.Module):
    """A residual layer with an additive embedding of time, a token and a lookup."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 3)
        self.time = nn.Sequential(nn.Linear(1, 6), nn.SiLU(), nn.Linear(6, 4))
        self.classes = nn.Embedding(7, 4)
        self.pos_embed = nn.Parameter(torch.randn(4))

    def forward(self, x, t, label):
        h = self.act(self.first(x)) + self.time(t) + self.classes(label)
        return self.last(self.act(h) + self.pos_embed)


@pytest.fixture
def call():
    torch.manual_seed(0)
    model = Conditioned().double()
    inputs = {"x": torch.randn(2, 5).double()}
    constants = {"t": torch.randn(2, 1).double(), "label": torch.tensor([3, 5])}
    return model, inputs, constants


def test_constants_are_named_and_exact(call):
    model, inputs, constants = call
    report = bcosify(model, constants=["time"])
    assert set(report.constants) == {"pos_embed", "time", "classes"}
    found = completeness(model, inputs, constants=constants)
    assert found.error < 1e-15
    assert abs(found.budget["rest"]) < 1e-13
    assert found.mass["time.0.bias"] == found.mass["time.2.bias"] == 0  # they are in "time"
    # By hand: held gates and held |wx|/|x|, times what is added.
    time, label = model.time(constants["t"]), model.classes(constants["label"])
    h = model.act(model.first(inputs["x"])) + time + label
    gate, before, rows = torch.sigmoid(h), h * torch.sigmoid(h) + model.pos_embed, model.last.weight
    scale = (before @ rows.T).abs() / before.norm(dim=-1, keepdim=True)

    def pushed(v):
        return (scale * (v @ rows.T)).sum().item()

    assert found.mass["time"] == pytest.approx(pushed(gate * time))
    assert found.mass["classes"] == pytest.approx(pushed(gate * label))
    assert found.mass["pos_embed"] == pytest.approx(pushed(model.pos_embed.expand(2, -1)))
    assert found.mass["last.bias"] == pytest.approx(2 * model.last.bias.sum().item())
    grouped = found.grouped({"added": "[tc]*", "biases": "*.bias"})
    assert set(grouped) == {"x", "added", "biases", "pos_embed", "rest"}
    assert grouped["added"] == pytest.approx(found.budget["time"] + found.budget["classes"])
    assert sum(grouped.values()) == pytest.approx(1)


def test_what_is_not_named_is_the_rest(call):
    model, inputs, constants = call
    bcosify(model)
    found = completeness(model, inputs, constants=constants)
    assert found.error > 1e-4
    given = contributions(model, inputs, constants=constants)["x"]
    assert found.mass["x"] == pytest.approx(float(given.sum()))


def test_a_constant_carries_no_signal_and_collectors_nest(call):
    model = call[0]
    value = torch.ones(3, requires_grad=True)
    assert constant(model, value) is value
    seen = []

    def collector(module, t):
        seen.append(module)
        return 2 * t

    with explanation_mode(), collecting(collector):
        assert not constant(model, value).requires_grad
        with collecting(lambda _, t: t + 1):
            assert constant(model, value).tolist() == [2, 2, 2]
        assert constant(model, value).tolist() == [2, 2, 2]
    assert seen == [model, model]


def test_a_model_called_through_a_function_has_constants_in_its_rest(call):
    model, inputs, constants = call
    bcosify(model, constants=["time"])
    found = completeness(lambda **t: model(**t), inputs, constants=constants)
    assert list(found.mass) == ["x"]
    assert found.error > 1e-3


def test_the_first_channels_of_a_constant_may_multiply():
    from bcos_kernels.convert.rules.layers import Constant
    from bcos_kernels.convert.swap import swap

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.time = nn.Linear(1, 8)

        def forward(self, x, t):
            scale, shift = self.time(t).chunk(2, 1)
            return x * scale + shift

    torch.manual_seed(0)
    model = Scaled().double()
    swap(model.time, Constant, {"multiplies": 4})
    x, t = torch.randn(2, 4).double(), torch.randn(2, 1).double()
    found = completeness(model, {"x": x}, constants={"t": t})
    scale, shift = model.time(t).chunk(2, 1)
    assert found.error < 1e-15
    assert found.mass["x"] == pytest.approx((x * scale).sum().item())
    assert found.mass["time"] == pytest.approx(shift.sum().item())


MEAN, DEVIATION = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)


def stem_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()


def normalised(image):
    return (image - image.new_tensor(MEAN).view(3, 1, 1)) / image.new_tensor(DEVIATION).view(3, 1, 1)


def test_a_stem_of_six_channels_computes_the_same_at_borders_too():
    model, image = stem_model(), torch.rand(2, 3, 6, 6).double()
    expected = model(normalised(image)).detach()
    report = bcosify(model, b=1, stem=Stem(MEAN, DEVIATION))
    assert torch.allclose(model(six_channels(image)), expected, atol=1e-13)
    assert report.constants == ("0",)
    assert model[0].weight.shape == (4, 6, 3, 3)
    assert model[0].in_channels == 6
    found = completeness(model, six_channels(image))
    assert found.error < 1e-14
    assert set(found.mass) == {"input", "0.bias", "2.bias", "0"}
    assert abs(found.mass["0"]) > 1e-3


def test_a_stem_without_constants_takes_one_half_for_the_mean():
    model, image = stem_model(), torch.rand(2, 3, 6, 6).double()
    half = (image - 0.5) / image.new_tensor(DEVIATION).view(3, 1, 1)
    inside = torch.nn.functional.conv2d(half, model[0].weight)
    report = bcosify(model, b=1, stem=Stem(MEAN, DEVIATION), biases="remove")
    assert report.biases == ()
    assert torch.allclose(model[0](six_channels(image))[:, :, 1:-1, 1:-1], inside, atol=1e-13)
    assert completeness(model, six_channels(image)).mass.keys() == {"input"}


def test_bad_stems_are_refused():
    with pytest.raises(ValueError, match="three means and three positive"):
        Stem((0.5,), (0.5,))
    with pytest.raises(ValueError, match="here: none"):
        bcosify(nn.Conv2d(4, 4, 1), stem=Stem())
    two = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="here: 0, 1; name it"):
        bcosify(two, stem=Stem())
    with pytest.raises(ValueError, match="'2' is no convolution of three channels; those are: 0, 1"):
        bcosify(two, stem=Stem(name="2"))
    with pytest.raises(ValueError, match="is excluded"):
        bcosify(two, stem=Stem(name="0"), exclude=["0"])
    two[1].weight = two[0].weight
    with pytest.raises(ValueError, match="shared by 0, 1"):
        bcosify(two, stem=Stem(name="0"))
    assert type(two[0]) is nn.Conv2d
    with pytest.raises(ValueError, match=r"expected a floating image \[..., 3, H, W\]"):
        six_channels(torch.rand(1, 4, 2, 2))


def test_one_tensor_in_a_tuple_is_an_output():
    class Wrapped(nn.Linear):
        def forward(self, x, return_dict=True):
            out = super().forward(x)
            return {"sample": out} if return_dict else (out,)

    model = Wrapped(3, 2, bias=False)
    assert completeness(model, {"x": torch.randn(2, 3)}, constants={"return_dict": False}).error < 1e-6
    with pytest.raises(ValueError, match="must return one floating tensor"):
        completeness(model, {"x": torch.randn(2, 3)})
