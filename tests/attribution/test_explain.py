"""explain: every kind of target and dtype against the full Jacobian, and who gave what the pixels did not."""

import copy

import pytest
import torch
from references.classifier import K, N, Net, jacobian, written_out
from torch import nn

from bcos_kernels import Stem, bcosify, contributions, explain, explanation_mode, is_explaining, six_channels
from bcos_kernels.attribution import explaining

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PER_IMAGE = torch.tensor([4, 0, 2])
GRID = torch.tensor([[0, 1, 2], [3, 4, 0]])


def chosen(target, logits):
    """The classes [T, N] that a target means."""
    if target is None:
        return logits.argmax(1)[None]
    if isinstance(target, torch.Tensor):
        return target.reshape(-1, N)
    return torch.tensor([target] if isinstance(target, int) else target)[:, None].expand(-1, N)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", [None, 3, [1], [0, 4, 4], PER_IMAGE, GRID], ids=str)
def test_against_the_jacobian(net, images, target, dtype):
    truth, logits = jacobian(net, images), written_out(net, images).detach()
    same = copy.deepcopy(net).to(dtype)
    x = images.to(dtype)
    found = explain(same, x, target, weights=True)
    several = isinstance(target, list) or target is GRID
    classes = chosen(target, found.logits)
    assert torch.equal(found.target, classes if several else classes[0])
    if target is None:
        assert torch.equal(found.prediction, found.target)
    plain, plain_logits = jacobian(same, x), written_out(same, x).detach()
    each = torch.arange(N)
    for number, row in enumerate(classes):
        pick = (lambda part, number=number: part[number]) if several else (lambda part: part)
        expected, reference = truth[each, row], plain[each, row]
        weights, maps = pick(found.weights), pick(found.contribution_maps)
        assert weights.dtype == dtype and maps.dtype == torch.promote_types(dtype, torch.float32)
        floor = torch.finfo(dtype).eps * (8 if dtype == torch.float64 else 1)  # where the truth is the reference
        for ours, theirs, true in [
            (weights, reference, expected),
            (maps, (x * reference).sum(1), (images * expected).sum(1)),
            (pick(found.explained), plain_logits[each, row], logits[each, row]),
        ]:
            error, allowed = (float((part.double() - true).norm() / true.norm()) for part in (ours, theirs))
            assert error <= 2 * allowed + floor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_pixels_and_constants_gave_is_the_logit(net, images, dtype):
    found = explain(net.to(dtype), images.to(dtype), [0, 1, 2])
    assert found.remainder.keys() == {"logit_bias", "rest"}
    constant = torch.full_like(found.total, net.logits.logit_bias)
    assert torch.equal(found.remainder["logit_bias"], constant)
    summed = found.total.double() + sum(part.double() for part in found.remainder.values())
    torch.testing.assert_close(summed, found.explained.double(), rtol=1e-6, atol=1e-6)
    assert found.error.shape == (3, N) and float(found.error.max()) <= 8 * torch.finfo(dtype).eps


def test_nothing_but_pixels_is_reported_without_a_bias(images):
    found = explain(Net(bias=None).double(), images)
    assert found.remainder.keys() == {"rest"}
    assert float(found.remainder["rest"].abs().max()) < 1e-12


def test_true_biases_and_running_means_have_a_name():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, K)
    ).double()  # fmt: skip
    model(torch.randn(8, 3, 6, 6).double())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(N, 3, 6, 6).double()
    found = explain(model.eval(), x, [1, 3])
    rows = torch.autograd.functional.jacobian(lambda x: model(x).sum(0), x)  # [K, N, C, H, W]
    alone = (rows * x).flatten(2).sum(2)[[1, 3]]
    torch.testing.assert_close(found.total, alone)
    torch.testing.assert_close(found.remainder["biases"], model(x).T[[1, 3]].detach() - alone)
    assert float(found.error.max()) < 1e-12
    assert found.images is None  # three channels have no complements to draw


def test_what_nobody_accounts_for_is_the_rest(net, images):
    found = explain(lambda x: net(x) + 2, images)  # no module: its logit layer is not seen either
    torch.testing.assert_close(found.remainder["rest"], torch.full((N,), 2 + net.logits.logit_bias).double())
    assert float(found.error.min()) > 0.01


def test_many_classes_take_one_forward_pass(net, images):
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    explain(net, images, list(range(K)))
    assert len(calls) == 1


def test_images_in_a_batch_are_explained_as_if_alone(net, images):
    whole = explain(net, images, PER_IMAGE, smooth=3)
    for number, label in enumerate(PER_IMAGE.tolist()):
        alone = explain(net, images[number : number + 1], label, smooth=3)
        torch.testing.assert_close(whole.contribution_maps[number : number + 1], alone.contribution_maps)
        torch.testing.assert_close(whole.images[number : number + 1], alone.images)


def test_images_are_drawn_where_they_can_be(net, images):
    assert explain(net, images).images.shape == (N, 4, 12, 10)
    assert explain(net, images, [0, 1]).images.shape == (2, N, 4, 12, 10)
    assert explain(net, images, images=False).images is None
    with pytest.raises(ValueError, match="6, H, W"):
        explain(lambda x: x.sum((2, 3)), images[:, :3], images=True)


def test_sequences_have_maps_too():
    found = explain(lambda x: x.sum(2), torch.rand(2, 4, 7), 1)
    assert found.contribution_maps.shape == (2, 7)
    torch.testing.assert_close(found.total, found.explained)


def test_an_output_that_does_not_depend_on_the_input(images):
    found = explain(lambda x: torch.ones(N, K).double(), images)
    assert not found.contribution_maps.any() and not found.images[:, 3].any()
    assert torch.equal(found.remainder["rest"], torch.ones(N).double())


def test_nothing_is_left_behind(net, images):
    explain(net, images, [0, 1])
    assert images.grad is None and not images.requires_grad
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not is_explaining() and not net.logits._forward_hooks
    with torch.inference_mode():
        inside = explain(net, images.clone())
    assert torch.equal(inside.contribution_maps, explain(net, images).contribution_maps)
    with pytest.raises(ValueError):
        explain(net, images, K)
    assert not net.logits._forward_hooks and not is_explaining()


@pytest.mark.parametrize(
    ("x", "target", "says"),
    [
        (torch.rand(6, 4), None, r"\[N, C, \*\]"),
        ("image", None, r"\[N, C, \*\]"),
        (torch.zeros(2, 6, 4, 4, dtype=torch.uint8), None, "floating"),
        (torch.rand(2, 6, 8, 8), 5, r"\[0, 4\]"),
        (torch.rand(2, 6, 8, 8), torch.tensor([0, 1, 2]), r"int64 \[2\]"),
        (torch.rand(2, 6, 8, 8), torch.zeros(0, 2, dtype=torch.int64), r"int64 \[2\]"),
        (torch.rand(2, 6, 8, 8), [], "a class, a sequence"),
    ],
)
def test_what_does_not_fit_is_refused(net, x, target, says):
    with pytest.raises(ValueError, match=says):
        explain(net.float(), x, target)


def test_refused_outputs(images):
    with pytest.raises(ValueError, match=r"logits \[3, classes\]"):
        explain(lambda x: x, images)
    norm = nn.Sequential(nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(ValueError, match="training mode"):
        explain(norm, images)


def test_a_class_an_image_several_times_over_also_in_contributions(net, images):
    both = contributions(net, images, target=GRID)
    assert both.shape == (2, *images.shape)
    assert torch.equal(both[1], contributions(net, images, target=GRID[1]))


class Switched(nn.Module):
    """A layer with a switch of its own, as in the bcos library: x * x with one factor held."""

    def __init__(self):
        super().__init__()
        self.detach = False

    def set_explanation_mode(self, activate=True):
        self.detach = activate

    def forward(self, x):
        return (x * (x.detach() if self.detach else x)).sum((2, 3))


def test_switches_of_other_libraries_are_used_and_put_back(images):
    model = nn.Sequential(Switched())
    found = explain(model, images, 2)
    torch.testing.assert_close(found.total, found.explained)
    assert not model[0].detach
    model[0].set_explanation_mode(True)
    with explaining(model), explaining(model):
        pass
    assert model[0].detach  # as its owner left it
    model[0].set_explanation_mode(False)
    with pytest.raises(RuntimeError), explaining(model):
        raise RuntimeError
    assert not model[0].detach and not is_explaining()


def test_a_model_with_a_mode_of_its_own(images):
    class Own(nn.Module):
        def explanation_mode(self):
            return explanation_mode()

        def forward(self, x):
            return (x * (x.detach() if is_explaining() else x)).sum((2, 3))

    found = explain(Own(), images, 2)
    torch.testing.assert_close(found.total, found.explained)


def test_what_a_converted_model_adds_is_accounted_for():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    bcosify(model, stem=Stem())
    found = explain(model, six_channels(torch.rand(2, 3, 40, 40, dtype=torch.float64)), [1, 4])
    assert float(found.error.max()) < 1e-12 and float(found.remainder["biases"].abs().min()) > 1e-6
    bcosify(constant := nn.Sequential(nn.Flatten(), nn.Linear(6, 5, bias=False)), b=1)
    assert "biases" not in explain(constant, torch.rand(2, 6, 1, 1)).remainder


MODELS = {"resnet.cifar10_resnet20": 32, "pretrained.simple_vit_ti_patch16_224": 224}


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_bcos_library(name, patched):
    module, factory = name.split(".")
    torch.manual_seed(0)
    model = getattr(pytest.importorskip(f"bcos.models.{module}"), factory)(num_classes=10).eval()
    x = torch.rand(2, 3, MODELS[name], MODELS[name])
    x = torch.cat([x, 1 - x], 1)
    expected = [model.explain(image[None].clone().requires_grad_(), idx=7) for image in x]
    if patched:
        pytest.importorskip("bcos_kernels.convert").patch(model)
    found = explain(model, x, 7, weights=True)
    for number, theirs in enumerate(expected):
        assert theirs["prediction"] == int(found.prediction[number])
        for ours, other in [
            (found.weights[number], theirs["dynamic_linear_weights"][0]),
            (found.contribution_maps[number], theirs["contribution_map"][0]),
        ]:
            assert float((ours - other).norm()) <= 1e-4 * float(other.norm())
        picture = torch.from_numpy(theirs["explanation"]).permute(2, 0, 1)
        assert float((found.images[number] - picture).abs().mean()) < 1e-3
    assert not any(getattr(module, "detach", False) is True for module in model.modules())
    # Transformers add a position embedding; where they are patched it has a name.
    assert (float(found.error.max()) < 1e-5) == ("resnet" in name or patched)


def test_the_rest_of_a_transformer_is_its_position_embedding(monkeypatch):
    library = pytest.importorskip("bcos.models.pretrained")
    torch.manual_seed(0)
    model = library.simple_vit_ti_patch16_224(num_classes=10).eval()
    nothing = torch.zeros_like
    monkeypatch.setattr("bcos.models.vit.PosEmbSinCos2d.forward", lambda _, patches: nothing(patches[0].flatten(0, 1)))
    assert float(explain(model, torch.rand(1, 6, 224, 224), 7).error.max()) < 1e-5
