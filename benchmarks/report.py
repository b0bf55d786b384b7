"""Measure every layer in every pass with every peer, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import CALLS, running_order
from benchmarks.passes import PASSES, Call, InputSet, Pass, flat, input_sets, passes_for, weight_of
from benchmarks.peers import COMPILED, EAGER, LINEAR, PEERS, Peer
from benchmarks.shapes import Layer
from benchmarks.summary import Row, against_plain
from benchmarks.timing import clock_for, interleave, sets_needed

COMPILING_SHARE = 1 / 3
"""The part of the time limit that may be spent waiting for ``torch.compile``."""
OUT_OF_TIME = "the time limit was reached"
COMPILED_ENOUGH = "a third of the time limit went into compiling other shapes; those are cached for a second run"
TOLERANCE = 0.05
"""Relative distance to the reference, in the length of all numbers together, beyond which a peer computes another
thing. No measure of accuracy, which the tests take: bfloat16 must fit in."""


class Budget:
    """The time that is left, shared out by what the cases to come will take."""

    def __init__(self, limit_s: float, prices: float) -> None:
        self._end = time.monotonic() + limit_s
        self._prices = prices
        self._compiling_left = COMPILING_SHARE * limit_s

    def spent(self) -> bool:
        return time.monotonic() >= self._end

    def until(self, price: float) -> float:
        """When the next case should end; it is then no longer to come."""
        now = time.monotonic()
        part = price / self._prices if self._prices > 0 else 1.0
        self._prices -= price
        return now + part * max(0.0, self._end - now - max(0.0, self._compiling_left))

    def may_compile(self) -> bool:
        return self._compiling_left > 0

    def compiled(self, seconds: float) -> None:
        self._compiling_left -= seconds


class Found(dict[str, Any]):
    """What could be made for each peer, and why the others could not."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    def attempt(self, name: str, make: Callable[[], Any]) -> None:
        """Keep what ``make`` gives, or why it fails: a peer that cannot run is part of the result."""
        try:
            self[name] = make()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            self.reasons[name] = f"{type(error).__name__}: {lines[0][:160]}"


def price(layer: Layer, which: Pass) -> float:
    """About how long a case takes, in multiplications; a call costs something whatever its size."""
    return which.price * layer.multiply_adds + 1e9


def run(
    layers: list[Layer], device: str, dtype: torch.dtype, limit_s: float, peers: tuple[str, ...] = tuple(PEERS)
) -> list[Row]:
    """One row a layer and pass, and two with the memory of a training step; peers that failed say why."""
    budget = Budget(limit_s, sum(price(layer, PASSES[name]) for layer in layers for name in passes_for(layer)))
    found = {}
    with tqdm(running_order(layers), unit="shape", disable=None) as bar:
        for layer in bar:
            bar.set_description(f"{layer.network} {layer.label}")
            found[layer] = _layer(layer, device, dtype, budget, peers)
    return [row for layer in layers for row in found[layer]]


def _layer(layer: Layer, device: str, dtype: torch.dtype, budget: Budget, names: tuple[str, ...]) -> list[Row]:
    built = Found()
    if budget.spent():
        built.reasons = dict.fromkeys(names, OUT_OF_TIME)
    else:
        weight = weight_of(layer, device, dtype)
        for name in names:
            built.attempt(name, partial(PEERS[name], layer, weight))
    rows, trained = [], Found()
    for name in passes_for(layer):
        samples, calls = _timed(layer, PASSES[name], device, dtype, budget, built)
        scale, unit = (1e6, "µs") if PASSES[name].host else (1e3, "ms")
        rows.append(_row(layer, name, unit, against_plain(samples, scale), calls.reasons, names))
        if name == "train":
            trained = calls
    if layer.network != CALLS:
        rows += _memory(layer, device, dtype, built, trained, names)
    return rows


def _timed(
    layer: Layer, which: Pass, device: str, dtype: torch.dtype, budget: Budget, built: Found
) -> tuple[dict[str, list[float]], Found]:
    """Seconds of each peer in interleaved rounds, and the calls that were timed."""
    calls = Found()
    calls.reasons |= built.reasons
    end = budget.until(price(layer, which))
    if budget.spent():
        calls.reasons |= dict.fromkeys(built, OUT_OF_TIME)
        return {}, calls
    count = sets_needed(device, layer.input_bytes(dtype.itemsize))
    sets = input_sets(layer, device, dtype, count, which.tangents)
    with torch.set_grad_enabled(which.grad):
        _warm(calls, which, built, sets, budget)
        about_s = _compare(calls)
        return interleave(calls, about_s, clock_for(device, which.host), count, end), calls


def _warm(calls: Found, which: Pass, built: Found, sets: list[InputSet], budget: Budget) -> None:
    """Make the call of each peer and run it once, so that nothing is compiled or tuned while time is taken."""
    for name, peer in built.items():
        if name == COMPILED and not budget.may_compile():
            calls.reasons[name] = COMPILED_ENOUGH
            continue
        began = time.monotonic()
        calls.attempt(name, partial(_warmed, which, peer, sets))
        if name == COMPILED:
            budget.compiled(time.monotonic() - began)


def _warmed(which: Pass, peer: Peer, sets: list[InputSet]) -> Call:
    call = which.build(peer, sets)
    call(0)
    return call


def _compare(calls: Found) -> dict[str, float]:
    """Drop B-cos peers that compute something else than the reference: a fast wrong answer is no result.

    Returns about how long each took at least: a device may not be done with it.
    """
    about_s, expected = {}, None
    for name in sorted(calls, key=lambda name: name != EAGER):
        began = time.monotonic()
        found = flat(calls[name](0))
        about_s[name] = time.monotonic() - began
        if name == EAGER:
            expected = found
        elif name not in LINEAR and expected is not None and not _agree(found, expected):
            calls.reasons[name] = "computes something else than the reference"
            del calls[name]
    return about_s


def _agree(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).norm() <= TOLERANCE * expected.norm())


def _memory(
    layer: Layer, device: str, dtype: torch.dtype, built: Found, trained: Found, names: tuple[str, ...]
) -> list[Row]:
    """Megabytes that a training step keeps for its backward and that it takes at its peak; one step is exact."""
    kept, peak = Found(), Found()
    kept.reasons, peak.reasons = dict(trained.reasons), dict(trained.reasons)
    sets = input_sets(layer, device, dtype, 1, 0) if trained else []
    for name in trained:
        peer: Peer = built[name]
        kept.attempt(name, partial(_kept_mb, peer, sets))
        peak.attempt(name, partial(_peak_mb, peer, sets, device))
    return [
        _row(layer, "saved", "MB", against_plain(dict(kept)), kept.reasons, names),
        _row(layer, "peak", "MB", against_plain(dict(peak)), peak.reasons, names),
    ]


def _kept_mb(peer: Peer, sets: list[InputSet]) -> list[float]:
    return [saved_bytes(peer, sets[0].x) / 2**20]


def _peak_mb(peer: Peer, sets: list[InputSet], device: str) -> list[float]:
    return [peak_bytes(_warmed(PASSES["train"], peer, sets), device) / 2**20]


def _row(
    layer: Layer, name: str, unit: str, measured: dict[str, dict[str, float]], why: dict[str, str],
    names: tuple[str, ...],
) -> Row:  # fmt: skip
    """A row of the results; the peers in their order, each with numbers or with the reason why there are none."""
    peers = {peer: measured[peer] if peer in measured else {"reason": why[peer]} for peer in names}
    described = asdict(layer) | {"layer": layer.label, "where": layer.name}
    del described["name"]
    return described | {"pass": name, "unit": unit, "peers": peers}
