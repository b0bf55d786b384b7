"""Every measure of localisation against a slow loop, and on maps whose answer is known."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from bcos_diffusion.evaluation import localisation as local
from bcos_diffusion.evaluation.mask_ap import IOU_THRESHOLDS, average_precision_of_masks, hits

rng = np.random.default_rng(0)
MASKS = rng.random((12, 9, 7)) < 0.3
MAPS = np.concatenate([
    rng.normal(size=(4, 9, 7)),
    rng.integers(-2, 4, size=(6, 9, 7)),  # with ties
    np.zeros((1, 9, 7)),
    -rng.random((1, 9, 7)),
])  # fmt: skip


def test_average_precision_is_that_of_scikit_learn() -> None:
    expected = [average_precision_score(m.ravel(), v.ravel()) for v, m in zip(MAPS, MASKS, strict=True)]
    np.testing.assert_allclose(local.average_precision(MAPS, MASKS), expected, rtol=1e-12)


def test_iou_against_sets_of_pixels() -> None:
    thresholds = [0.1, 0.4, 1.0]
    found = local.iou(MAPS, MASKS, thresholds)
    for k, (values, mask) in enumerate(zip(MAPS, MASKS, strict=True)):
        truth = set(zip(*mask.nonzero(), strict=True))
        for column, tau in enumerate(thresholds):
            top = values.max()
            cut = {(y, x) for y in range(9) for x in range(7) if top > 0 and values[y, x] >= tau * top}
            assert found[k, column] == pytest.approx(len(cut & truth) / len(cut | truth), abs=1e-15)


def test_mass_leakage_and_pointing_against_loops() -> None:
    beside = local.others(MASKS)
    inside, leaked, pointed = (
        local.mass_inside(MAPS, MASKS),
        local.mass_inside(MAPS, beside),
        local.pointing(MAPS, MASKS),
    )
    for k, values in enumerate(MAPS):
        total = within = outside = 0.0
        best: list[bool] = []
        for y in range(9):
            for x in range(7):
                positive = max(float(values[y, x]), 0.0)
                foreign = any(MASKS[j, y, x] for j in range(12) if j != k) and not MASKS[k, y, x]
                assert beside[k, y, x] == foreign
                total += positive
                within += positive * MASKS[k, y, x]
                outside += positive * foreign
                if values[y, x] == values.max() and values.max() > 0:
                    best.append(bool(MASKS[k, y, x]))
        assert inside[k] == pytest.approx(within / total if total else 0.0)
        assert leaked[k] == pytest.approx(outside / total if total else 0.0)
        assert pointed[k] == pytest.approx(sum(best) / len(best) if best else 0.0)
        assert local.mass(MAPS)[k] == pytest.approx(total)


def test_a_perfect_map_and_one_that_points_nowhere() -> None:
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 1:3, 2:5] = True
    for measure in (local.average_precision, local.pointing, local.mass_inside):
        assert measure(3.0 * mask, mask) == 1
    assert (local.iou(3.0 * mask, mask) == 1).all()
    nothing = np.zeros((1, 6, 6))
    assert local.average_precision(nothing, mask) == pytest.approx(6 / 36)  # ranks no pixel above another
    assert local.pointing(nothing, mask) == local.mass_inside(nothing, mask) == 0
    assert (local.iou(nothing, mask) == 0).all()
    flat = np.ones((1, 6, 6))
    assert local.pointing(flat, mask) == pytest.approx(6 / 36)
    assert local.iou(flat, mask, 0.4) == pytest.approx(6 / 36)


def test_no_mask_is_no_number() -> None:
    maps, empty = np.ones((1, 4, 4)), np.zeros((1, 4, 4), bool)
    for measure in (local.average_precision, local.pointing, local.mass_inside):
        assert math.isnan(measure(maps, empty)[0])
    assert np.isnan(local.iou(maps, empty)).all()


def test_shares_of_mass_and_the_largest_word() -> None:
    maps = np.array([[[1.0, -5.0]], [[2.0, 1.0]], [[0.0, 0.0]]])
    assert local.share_of_mass(maps, [True, False, True]) == pytest.approx(0.25)
    assert local.share_of_mass(0 * maps, [True, False, True]) == 0
    assert local.largest(maps, [[True, False]], 1) == 1 and local.largest(maps, [[True, False]], 0) == 0
    assert local.largest(np.ones((4, 1, 2)), [[True, True]], 2) == 0.25
    assert local.largest(-np.ones((4, 1, 2)), [[True, True]], 2) == 0


def test_the_threshold_is_the_best_on_average_not_for_most() -> None:
    curves = [[0.5, 0.4, 0.0], [0.5, 0.4, 0.0], [0.0, 0.9, 0.1], [math.nan] * 3]
    assert local.best_threshold(curves, [0.2, 0.4, 0.6]) == 0.4
    assert local.best_threshold([[0.3, 0.3, 0.1]], [0.2, 0.4, 0.6]) == 0.2
    with pytest.raises(ValueError, match="no map has a true mask"):
        local.best_threshold([[math.nan] * 3], [0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    ("maps", "masks", "says"),
    [
        (np.full((1, 2, 2), math.nan), np.ones((1, 2, 2)), "finite"),
        (np.ones((1, 2, 2)), np.ones((1, 2, 3)), "one shape"),
        (np.ones((2, 2)), np.ones((2, 2)), r"\[k, H, W\]"),
    ],
)
def test_bad_maps_are_refused(maps: np.ndarray, masks: np.ndarray, says: str) -> None:
    for measure in (local.average_precision, local.iou, local.pointing, local.mass_inside):
        with pytest.raises(ValueError, match=says):
            measure(maps, masks)


def coco_average_precision(ious: list[float]) -> float:
    """What pycocotools does for one class of equal scores, as one step: precision and recall after all masks."""
    total = 0.0
    for threshold in IOU_THRESHOLDS:
        matched = sum(iou >= threshold for iou in ious)
        precision = recall = matched / len(ious)
        total += sum(precision if r / 100 <= recall + 1e-9 else 0.0 for r in range(101)) / 101
    return total / len(IOU_THRESHOLDS)


def test_average_precision_of_masks() -> None:
    ious = rng.random(25).tolist()
    assert average_precision_of_masks(hits(ious).mean(0)) == pytest.approx(coco_average_precision(ious))
    assert average_precision_of_masks(hits([1.0, 1.0]).mean(0)) == 1
    assert average_precision_of_masks(hits([0.49, 0.1]).mean(0)) == 0
    assert average_precision_of_masks(hits([0.72] * 4).mean(0)) == pytest.approx(0.5)  # matches at .50 … .70
    # A random half of the image, as in the paper's table: a mean IoU as there, and no average precision.
    object_ = np.zeros((1, 40, 40), bool)
    object_[0, 5:25, 10:25] = True
    half = (rng.random((30, 40, 40)) < 0.5).astype(float)
    found = local.iou(half, np.repeat(object_, 30, 0), 0.4)[:, 0]
    assert 0.12 < found.mean() < 0.2 and average_precision_of_masks(hits(found).mean(0)) == 0
