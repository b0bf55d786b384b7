"""The plan for many devices: what it counts is what real tensors do, and its formulas against slow ones."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def plan() -> ModuleType:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("plan")
    finally:
        sys.path.remove(folder)


def test_fake_tensors_count_what_real_ones_do(plan: ModuleType) -> None:
    real = plan._count(plan.build("scenes"), plan.TOKENS["scenes"], recomputed=False)
    fake = plan.count("scenes")
    assert fake == real
    spared = plan.count("scenes", recomputed=True)
    assert spared["kept_bytes"] < 0.5 * real["kept_bytes"]
    assert real["step_flops"] < spared["step_flops"] <= real["step_flops"] + real["forward_flops"]


def test_what_is_sent_is_what_a_ring_sends(plan: ModuleType) -> None:
    """Four devices with a chunk each for every other: three chunks scattered and three gathered."""
    devices, parameters = 4, 1000
    chunk = parameters * 4 / devices
    assert plan.sent_bytes(parameters, devices, shard=False) == pytest.approx(2 * 3 * chunk)
    assert plan.sent_bytes(parameters, devices, shard=True) == pytest.approx(3 * 3 * chunk)


def test_efficiency_is_between_nothing_and_everything_overlapped(plan: ModuleType) -> None:
    counted = {"step_flops": 2e12, "parameters": 1e9}
    row = plan.efficiency(counted, plan.Assumed(tflops=100.0, link_gb_s=16.0), devices=2, images=10, shard=False)
    assert (row["compute_s"], row["send_s"]) == pytest.approx((0.2, 0.25))
    assert row["efficiency_apart"] == pytest.approx(0.2 / 0.45)
    assert row["efficiency_overlapped"] == pytest.approx(0.2 / 0.25)
