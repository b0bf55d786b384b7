"""The parts of the epilogue are timed on every backend that runs here."""

import torch

from bcos_kernels import dispatch
from benchmarks.epilogue import LAYOUTS, PARTS, rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_every_part_is_timed_on_every_backend(monkeypatch):
    monkeypatch.setattr("benchmarks.timing.HostClock.sample_s", 1e-4)
    monkeypatch.setattr("benchmarks.timing.ROUNDS", (3, 3))
    found = list(rows(DEVICE, torch.float32, 0, ((2, 8, 5, 4),)))
    assert [row["part"] for row in found] == len(LAYOUTS) * list(PARTS)
    backends = set(dispatch.BACKENDS) - set(dispatch.refusals(torch.ones(1, device=DEVICE)))
    for row in found:
        assert all(0 < row[f"{name} us"] < 1e5 for name in backends)
        assert ("reference call us" in row) == (DEVICE == "cuda")
