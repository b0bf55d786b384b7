"""Every number of separation against counting pairs and thresholds one by one."""

import math
from itertools import product

import numpy as np
import pytest

from bcos_diffusion.missing import separation as s


@pytest.fixture(params=[0, 1, 2])
def words(request: pytest.FixtureRequest) -> tuple[list[float], list[bool]]:
    rng = np.random.default_rng(request.param)
    drawn = rng.random(60) < 0.6
    return np.clip(np.round(0.3 * drawn + 0.7 * rng.random(60), 1), 0, 1).tolist(), drawn.tolist()


def test_auroc_counts_pairs(words: tuple[list[float], list[bool]]) -> None:
    scores, drawn = words
    pairs = [(a, b) for (a, x), (b, y) in product(zip(scores, drawn, strict=True), repeat=2) if x and not y]
    expected = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert s.auroc(scores, drawn) == pytest.approx(expected)


def test_auprc_steps_through_thresholds(words: tuple[list[float], list[bool]]) -> None:
    scores, drawn = words
    expected = recall_before = 0.0
    for threshold in sorted(set(scores)):
        called = [not d for v, d in zip(scores, drawn, strict=True) if v <= threshold]
        recall = sum(called) / drawn.count(False)
        expected += (recall - recall_before) * sum(called) / len(called)
        recall_before = recall
    assert s.auprc(scores, drawn) == pytest.approx(expected)


def test_false_positive_rate_at_the_lowest_threshold(words: tuple[list[float], list[bool]]) -> None:
    scores, drawn = words
    missing = [v for v, d in zip(scores, drawn, strict=True) if not d]
    threshold = min(t for t in scores if sum(v <= t for v in missing) >= 0.95 * len(missing))
    present = [v for v, d in zip(scores, drawn, strict=True) if d]
    assert s.false_positive_rate(scores, drawn) == pytest.approx(sum(v <= threshold for v in present) / len(present))


def test_calibration_error_by_bins(words: tuple[list[float], list[bool]]) -> None:
    scores, drawn = words
    expected = 0.0
    for b in range(10):
        held = [(v, d) for v, d in zip(scores, drawn, strict=True) if min(int(v * 10), 9) == b]
        expected += abs(sum(v - d for v, d in held)) / len(scores)
    assert s.calibration_error(scores, drawn) == pytest.approx(expected)
    assert sum(row["words"] for row in s.reliability(scores, drawn)) == len(scores)


def test_equal_numbers_and_undefined() -> None:
    # In each size the score is useless; over all pictures the size alone makes it look good.
    small, large = [(0.9, True), (0.9, False)], [(0.1, False), (0.1, True), (0.1, False), (0.1, False)]
    assert s.equal_numbers_auroc([small, large]) == 0.5 and s.flat_auroc([small, large]) > 0.5
    assert s.flat_auroc([[(1.0, True), (0.0, False)]]) == 1.0
    for measure in (s.auroc, s.auprc, s.false_positive_rate):
        assert math.isnan(measure([0.1, 0.2], [True, True]))
    found = s.separation([small, large] * 5, probabilities=True)
    assert found["auroc"]["low"] <= found["auroc"]["value"] <= found["auroc"]["high"]
