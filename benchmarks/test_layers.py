"""The shapes that stand for the others, under pytest-benchmark: ``pytest benchmarks --benchmark-json=out.json``.

Peers run one after another here, so a drift of the machine is in the ratios; ``python -m benchmarks report``
interleaves them. A peer that is not installed is skipped; one that cannot run a shape fails.
"""

from itertools import cycle

import pytest
import torch

from benchmarks.networks import layers
from benchmarks.passes import PASSES, input_sets, passes_for, weight_of
from benchmarks.peers import PEERS
from benchmarks.timing import calls_per_sample, clock_for

pytest.importorskip("pytest_benchmark", reason="pip install '.[bench]'")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGEST = 500_000_000
"""Multiplications of one forward pass beyond which a shape is left to the report: here every round counts."""
PLAIN_LETTERS = str.maketrans({" ": "-", "→": "-", "×": "x", "²": None, ",": None})
CASES = [
    pytest.param(layer, name, id=f"{layer.network} {layer.label} {name}".translate(PLAIN_LETTERS))
    for layer in layers("cpu", quick=True)
    for name in passes_for(layer)
    if layer.multiply_adds <= LARGEST
]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("layer", "name"), CASES)
def test_layer(layer, name, peer, benchmark):
    which = PASSES[name]
    benchmark.group = f"{layer.network} {layer.label}, {name}"
    try:
        built = PEERS[peer](layer, weight_of(layer, DEVICE, torch.float32))
    except ImportError as error:
        pytest.skip(f"{peer}: {error}")
    sets = input_sets(layer, DEVICE, torch.float32, 3, which.tangents)
    turns = cycle(range(len(sets)))
    wait = torch.cuda.synchronize if DEVICE == "cuda" and not which.host else lambda: None
    with torch.set_grad_enabled(which.grad):
        call = which.build(built, sets)
        call(0)
        inner = calls_per_sample(clock_for(DEVICE, which.host), call, len(sets), 0.0)

        def once():
            outcome = call(next(turns))
            wait()
            return outcome

        benchmark.extra_info |= {"device": DEVICE, "peer": peer}
        outcome = benchmark.pedantic(once, rounds=5, iterations=inner, warmup_rounds=1)
    assert all(part.isfinite().all() for part in ([outcome] if isinstance(outcome, torch.Tensor) else outcome))
