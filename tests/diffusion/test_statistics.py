"""Rank correlation, bootstrap and ratios against their definitions."""

import math

import numpy as np
import pytest

from bcos_diffusion.evaluation.statistics import bootstrap, mean, ranks, ratio, spearman


def slow_ranks(values: list[float]) -> list[float]:
    return [sum(v < u for v in values) + (sum(v == u for v in values) + 1) / 2 for u in values]


@pytest.mark.parametrize("seed", range(20))
def test_spearman_equals_its_definition_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 30))
    x, y = rng.integers(0, 6, n).tolist(), rng.normal(size=n).round(1).tolist()
    assert ranks(x).tolist() == slow_ranks(x)
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert spearman(x, y) == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1], abs=1e-12)


def test_spearman_of_known_orders() -> None:
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(spearman([0, 0, 0], [1, 2, 3]))
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2], [1, 2, 3])


def test_a_bootstrap_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400).tolist()
    found = bootstrap(values, mean)
    assert found["value"] == pytest.approx(np.mean(values))
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.std(values) / 20, rel=0.15)
    assert found == bootstrap(values, mean)
    assert math.isnan(bootstrap([], mean)["value"])


def test_a_ratio_to_exactly_nothing_is_infinite() -> None:
    assert ratio([(1, 2), (2, 2)]) == 0.75
    assert ratio([(1, 0)]) == math.inf
    assert math.isnan(ratio([(0, 0)]))
    assert bootstrap([(1.0, 0.0), (2.0, 0.0)], ratio)["value"] == math.inf
