"""The linear probe against scikit-learn's logistic regression."""

import json

import pytest
import torch

from bcos_diffusion.features.probe import Split, fit_linear, stratified_split


def clouds(images: int, dim: int, classes: int = 4, apart: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian clouds, one a class, whose axes differ in scale and offset."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    centres = apart * torch.randn(classes, dim, generator=generator) / dim**0.25
    x = centres[labels] + torch.randn(images, dim, generator=generator)
    return x * torch.logspace(-2, 2, dim) + torch.linspace(-30, 30, dim), labels


@pytest.mark.parametrize("dim", [6, 200])
@pytest.mark.parametrize("strength", [0.3, 0.01])
def test_weights_are_scikit_learns(dim, strength):
    """200 features of 84 images are fitted in the span of the images, which must not change a thing."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = clouds(120, dim)
    split = stratified_split(labels, 0)
    result = fit_linear(x, labels, 4, split, (strength,))
    train = x[split.train].double()
    mean, scale = train.mean(0), train.std(0, correction=0)
    reference = linear_model.LogisticRegression(C=1 / (strength * len(train)), tol=1e-10, max_iter=10_000)
    reference.fit(((train - mean) / scale).numpy(), labels[split.train].numpy())
    weight = torch.from_numpy(reference.coef_).T.float()
    assert (result.probe.weight - weight).norm() < 2e-3 * weight.norm()
    probabilities = torch.from_numpy(reference.predict_proba(((x.double() - mean) / scale).numpy())).float()
    assert torch.allclose(result.probe.logits(x).softmax(1), probabilities, atol=2e-3)
    assert result.test.predicted.tolist() == probabilities[split.test].argmax(1).tolist()


def test_the_strength_is_chosen_on_validation_alone():
    x, labels = clouds(300, 60, apart=0.7)
    split = stratified_split(labels, 0)
    result = fit_linear(x, labels, 4, split)
    assert result.on_validation[result.strength] == max(result.on_validation.values()) == result.validation.top1
    assert len(result.on_validation) > 1 and min(result.on_validation.values()) < result.validation.top1
    poisoned = labels.clone()
    poisoned[split.test] = (labels[split.test] + 1) % 4
    again = fit_linear(x, poisoned, 4, split)
    assert again.strength == result.strength and torch.equal(again.probe.weight, result.probe.weight)
    assert again.test.top1 < 0.4 < result.test.top1
    json.dumps(result.to_dict(), allow_nan=False)


def test_it_repeats_to_the_last_digit_and_heeds_no_order_of_strengths():
    x, labels = clouds(120, 30)
    split = stratified_split(labels, 0)
    first, second = (fit_linear(x, labels, 4, split, s) for s in ((0.1, 0.01), (0.01, 0.1)))
    assert torch.equal(first.probe.weight, second.probe.weight) and first.strength == second.strength


def test_scale_offset_and_dead_features_change_nothing():
    x, labels = clouds(120, 8)
    split = stratified_split(labels, 0)
    result = fit_linear(x, labels, 4, split, (0.1,))
    moved = torch.cat([x * 1000 + 5, torch.full((120, 3), 0.1)], dim=1)
    with_dead = fit_linear(moved, labels, 4, split, (0.1,))
    assert torch.allclose(with_dead.probe.weight[:8], result.probe.weight, atol=1e-3)
    assert bool((with_dead.probe.weight[8:].abs() < 1e-6).all())
    assert with_dead.test.predicted.tolist() == result.test.predicted.tolist()


def test_features_that_say_nothing_give_the_commonest_class():
    labels = torch.tensor([0, 1, 1] * 20)
    split = stratified_split(labels, 0)
    for dim in (3, 500):
        result = fit_linear(torch.ones(60, dim), labels, 2, split)
        assert set(result.test.predicted.tolist()) == {1}


def test_images_without_a_label_are_left_out_and_unseen_classes_are_never_said():
    x, labels = clouds(120, 8)
    labels[::7] = -1
    split = Split(torch.arange(0, 80), torch.arange(80, 100), torch.arange(100, 120))
    labels[:100][labels[:100] == 2] = -1
    result = fit_linear(x, labels, 5, split, (0.1,))
    assert result.probe.classes.tolist() == [0, 1, 3]
    assert result.test.count == int((labels[100:] >= 0).sum())
    assert 2 not in result.test.predicted.tolist()
    reference = fit_linear(x[labels >= 0], labels[labels >= 0], 5, _kept(split, labels), (0.1,))
    assert torch.equal(reference.probe.weight, result.probe.weight)


def _kept(split: Split, labels: torch.Tensor) -> Split:
    place = torch.cumsum((labels >= 0).long(), 0) - 1
    return Split(**{name: place[part] for name, part in split.labelled(labels).parts().items()})


def test_half_precision_features_are_read():
    x, labels = clouds(120, 4)
    half = ((x - x.mean(0)) / x.std(0)).half()
    split = stratified_split(labels, 0)
    assert torch.equal(
        fit_linear(half, labels, 4, split).probe.weight, fit_linear(half.float(), labels, 4, split).probe.weight
    )


def test_what_cannot_be_learned_from_is_refused():
    x, labels = clouds(60, 5)
    split = stratified_split(labels, 0)
    cases = [
        (x, torch.zeros(60, dtype=torch.int64), split, "only class 0"),
        (x[:, :, None, None], labels, split, r"\.mean\(\(2, 3\)\)"),
        (x.long(), labels, split, "floats"),
        (x[:, :0], labels, split, "floats"),
        (x[:50], labels, split, r"labels must be int64 \[50\]"),
        (x[:50], labels[:50], split, "names image 59 of 50"),
        (x, labels.int(), split, "int64"),
        (x, labels + 1, split, "from 0 to 3, got 1 to 4"),
        (x, torch.full_like(labels, -1), split, "no image of train has a label"),
    ]
    for features, own, parts, said in cases:
        with pytest.raises(ValueError, match=said):
            fit_linear(features, own, 4, parts)
    for bad in (float("nan"), float("inf")):
        broken = x.clone()
        broken[3, 2] = broken[9, 1] = bad
        with pytest.raises(ValueError, match="features of 2 images have values that are not finite"):
            fit_linear(broken, labels, 4, split)
    for strengths in ((), (0.0,), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="strengths"):
            fit_linear(x, labels, 4, split, strengths)
