"""What latents tell, against scikit-learn latent by latent, and on codes whose meaning is known."""

import math

import pytest
import torch
from references.sparse_codes import dense, random_codes
from sklearn.metrics import average_precision_score, mutual_info_score, roc_auc_score

from bcos_diffusion.features.latents.activations import collect
from bcos_diffusion.features.latents.monosemanticity import MIXED, NOTHING, monosemanticity
from bcos_diffusion.features.latents.selectivity import selectivity

IMAGES = 600


def test_measures_are_those_of_scikit_learn() -> None:
    values, indices = random_codes(70, 20, 5, seed=3)
    found = dense(values, indices, 20)[0].double()
    labels = torch.randint(-1, 4, (70,), generator=torch.Generator().manual_seed(2))
    measured = selectivity(collect([(values, indices)], 20), labels, 5)  # of class 4 there is no image
    has = labels >= 0
    for j in range(20):
        scores = found[has, j]
        for c in range(4):
            of_class = (labels[has] == c).numpy()
            assert measured.auroc[j, c].item() == pytest.approx(roc_auc_score(of_class, scores))
            assert measured.average_precision[j, c].item() == pytest.approx(average_precision_score(of_class, scores))
            assert measured.active[j, c] == (scores[of_class] > 0).sum()
            assert measured.share[j, c].item() == pytest.approx((scores[of_class].sum() / scores.sum()).item())
        median = scores[scores > 0].median() if (scores > 0).sum() % 2 else scores[scores > 0].quantile(0.5)
        levels = [0 if s == 0 else 1 if s <= median else 2 for s in scores.tolist()]
        entropy = mutual_info_score(labels[has], labels[has])
        # A run of equal values around the median is strong where its middle rank is above the median's.
        if not (scores == median).any() or (scores == median).sum() == 1:
            assert measured.information[j].item() == pytest.approx(mutual_info_score(labels[has], levels) / entropy)
    assert measured.auroc[:, 4].isnan().all() and measured.average_precision[:, 4].isnan().all()


def test_information_with_distinct_values() -> None:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 3, (50,), generator=generator)
    scores = torch.where(torch.rand(50, generator=generator) < 0.6, torch.rand(50, generator=generator), 0)
    measured = selectivity(collect([(scores[:, None], torch.zeros(50, 1, dtype=torch.long))], 1), labels, 3)
    middle = scores[scores > 0].quantile(0.5)
    levels = [0 if s == 0 else 1 if s <= middle else 2 for s in scores.tolist()]
    expected = mutual_info_score(labels, levels) / mutual_info_score(labels, labels)
    assert measured.information[0].item() == pytest.approx(expected)


def known_codes() -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, tuple[str, ...]]]:
    """Latents: 0 some of the cats, 1 blue, 2 blue cats, 3 cats and dogs, 4 noise, 5 two cats, 6 dead."""
    generator = torch.Generator().manual_seed(0)
    shape, colour = (torch.randint(0, n, (IMAGES,), generator=generator) for n in (4, 5))
    noise = torch.rand(IMAGES, generator=generator) < 0.3
    activity = torch.zeros(IMAGES, 7)
    activity[:, 0] = (shape == 2) & noise
    activity[:, 1] = colour == 3
    activity[:, 2] = (shape == 2) & (colour == 3)
    activity[:, 3] = (shape == 2) | (shape == 0)
    activity[:, 4] = noise
    activity[(shape == 2).nonzero().flatten()[:2], 5] = 1
    values = activity * (0.5 + torch.rand(IMAGES, 7, generator=generator))
    colour[::10] = -1
    names = {"object": ("dog", "cow", "cat", "bee"), "colour": ("red", "blue", "green", "grey", "pink")}
    return values, {"object": shape, "colour": colour}, names


def test_verdicts_on_latents_whose_meaning_is_known() -> None:
    values, labels, classes = known_codes()
    indices = torch.arange(7).expand(IMAGES, 7)
    found = monosemanticity(collect([(values, indices)], 7), labels, classes)
    assert found.verdict.tolist() == [0, 1, -2, -1, -1, -3, -3]
    assert found.readings["object"].best[[0, 2]].tolist() == [2, 2]
    assert found.readings["colour"].best[[1, 2]].tolist() == [3, 3]
    assert found.readings["object"].selectivity[0] == 1
    shares = {"object": 0.2, "colour": 0.2, MIXED: 0.2, NOTHING: 0.4}
    assert found.summary.monosemantic == pytest.approx(shares)
    assert found.summary.telling == pytest.approx({"object": 0.4, "colour": 0.4})
    assert found.chance.telling == {"object": 0, "colour": 0} and found.chance.monosemantic[NOTHING] == 1
    assert found.summary.auroc["colour"] > found.chance.auroc["colour"]
    assert found.summary.information["object"] > 3 * found.chance.information["object"]


def test_chance_repeats_from_its_seed() -> None:
    values, labels, classes = known_codes()
    activations = collect([(values, torch.arange(7).expand(IMAGES, 7))], 7)
    first = monosemanticity(activations, labels, classes, seed=4)
    assert first.chance == monosemanticity(activations, labels, classes, seed=4).chance
    assert first.chance != monosemanticity(activations, labels, classes, seed=5).chance


def test_few_verdicts_are_accidents() -> None:
    values, indices = random_codes(400, 300, 10, seed=7)
    labels = torch.randint(0, 6, (400,), generator=torch.Generator().manual_seed(3))
    found = monosemanticity(collect([(values, indices)], 300), {"object": labels}, {"object": tuple("abcdef")})
    assert found.summary.telling["object"] < 0.01 and found.judged.float().mean() > 0.5


def test_no_latent_to_judge() -> None:
    values, labels, classes = known_codes()
    activations = collect([(values, torch.arange(7).expand(IMAGES, 7))], 7)
    found = monosemanticity(activations, labels, classes, least_images=10_000)
    assert not found.judged.any() and math.isnan(found.summary.telling["object"])


def test_labels_that_do_not_fit() -> None:
    values, labels, classes = known_codes()
    activations = collect([(values, torch.arange(7).expand(IMAGES, 7))], 7)
    for wrong, names, message in [
        ({"object": labels["object"][1:]}, classes, "factor 'object': labels must be"),
        (labels, {"object": classes["object"]}, "'colour' has labels but no classes; classes are of object"),
        ({"object": labels["object"]}, {"object": ("dog", "cow")}, "has 2 classes, but label 3"),
        ({"object": torch.zeros(IMAGES, dtype=torch.long)}, classes, "two classes at least"),
        ({}, classes, "there must be a factor"),
    ]:
        with pytest.raises(ValueError, match=message):
            monosemanticity(activations, wrong, names)
