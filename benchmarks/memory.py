"""Memory of one training step of a layer: what is kept for the backward, and the peak."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.passes import Call
from benchmarks.peers import Peer


def saved_bytes(peer: Peer, x: Tensor) -> int:
    """Bytes that the graph keeps for the backward, each storage once.

    Without the weight, and without the output, which the next layer keeps as its input anyway.
    """
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = peer.forward(x.detach().requires_grad_())
    for own in (peer.weight, output):
        held.pop(own.untyped_storage().data_ptr(), None)
    return sum(held.values())


def peak_bytes(call: Call, device: str) -> int:
    """The most that torch's allocator holds during a warm call, above what it held before."""
    return _peak_on_device(call) if device == "cuda" else _peak_on_host(lambda: call(0))


def _peak_on_device(call: Call) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    call(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - start


def _peak_on_host(action: Callable[[], object]) -> int:
    """The highest sum of the allocations that torch's profiler sees; what a library takes for itself is not in it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        action()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    now = peak = 0
    for change in sorted(changes, key=lambda event: float(event["ts"])):
        now += int(change["args"]["Bytes"])
        peak = max(peak, now)
    return peak
