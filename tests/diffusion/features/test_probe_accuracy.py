"""Accuracy and its interval against SciPy and scikit-learn."""

import json
import math

import pytest
import torch

from bcos_diffusion.features.probe import Accuracy, margin, wilson


def said(seed: int = 0, count: int = 200, classes: int = 7) -> Accuracy:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes - 1, (count,), generator=torch.Generator().manual_seed(99))  # the last has none
    wrong = torch.rand(count, generator=generator) < 0.4
    guess = torch.randint(classes, (count,), generator=generator)
    return Accuracy(torch.where(wrong, guess, truth), truth, classes)


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (1, 1), (37, 100), (599, 600)])
def test_the_interval_is_wilsons(correct, count):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert wilson(correct, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_of_no_images_is_not_a_number():
    assert all(math.isnan(end) for end in wilson(0, 0))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_numbers_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    accuracy = said()
    truth, predicted = accuracy.truth.numpy(), accuracy.predicted.numpy()
    assert accuracy.top1 == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert accuracy.confusion.tolist() == metrics.confusion_matrix(truth, predicted, labels=range(7)).tolist()
    assert accuracy.balanced == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    recall = metrics.recall_score(truth, predicted, labels=range(6), average=None)
    assert accuracy.per_class[:6].tolist() == pytest.approx(recall.tolist())
    assert math.isnan(float(accuracy.per_class[6]))
    values = accuracy.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values and values["per_class"][6] is None


def test_a_margin_is_paired():
    first, second = said(1), said(2)
    difference = margin(first, second)
    assert difference["value"] == pytest.approx(first.top1 - second.top1)
    assert difference["low"] < difference["value"] < difference["high"]
    back = margin(second, first)
    assert back["value"] == pytest.approx(-difference["value"])
    assert margin(first, first) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_margin_needs_the_same_images():
    with pytest.raises(ValueError, match="same images"):
        margin(said(count=100), said(count=101))


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [([0, 1], [0], "must be"), ([], [], "at least one"), ([0, 3], [0, 1], "predicted"), ([0, 1], [-1, 1], "truth")],
)
def test_bad_labels_are_refused(predicted, truth, said):
    with pytest.raises(ValueError, match=said):
        Accuracy(torch.tensor(predicted, dtype=torch.int64), torch.tensor(truth, dtype=torch.int64), 3)
