"""Time of a sparse autoencoder's three sums by every way to compute them, in one run.

    python benchmarks/sparse_decode.py [--device cuda] [--shapes small large largest] [--rounds 7] [--out FILE]

``decode``: k rows of the decoder for each sample; ``to values``: its gradient to the activations; ``to rows``: its
gradient to the decoder. Peers: torch's embedding_bag and its own backward pass, a gather and a batched product, a
CSR matrix, and dense activations. Rounds are interleaved, so that a machine that slows down slows all. ``encode`` is
what every training step pays besides: the dense product, and the k largest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import describe, print_table
from torch import Tensor

from bcos_diffusion.features.sae.pick import pick
from bcos_diffusion.features.sae.sparse import row_products, scattered_rows, weighted_rows
from bcos_kernels.files import write_json

K = 32
SHAPES = {
    "small": [(256, 5120, 80), (256, 13_312, 208), (1024, 13_312, 208)],
    "large": [(1024, 81_920, 1280)],
    "largest": [(4096, 81_920, 1280)],
}
"""Samples, latents, dimensions: of a small model, and of Stable Diffusion in the paper."""
Call = Callable[[], Any]


class Case:
    """Inputs of one shape, and every way to compute each sum of them."""

    def __init__(self, samples: int, latents: int, width: int, device: str):
        random = torch.Generator().manual_seed(0)
        self.shape = samples, latents, width
        self.x = torch.randn(samples, width, generator=random).to(device)
        self.table = torch.randn(latents, width, generator=random).to(device)
        self.values = torch.rand(samples, K, generator=random).to(device)
        keys = (torch.randperm(latents, generator=random)[:K] for _ in range(samples))
        self.indices = torch.stack(list(keys)).to(device)

    def ways(self) -> dict[str, dict[str, Call]]:
        """Sum -> peer -> call, each of which gives the sum."""
        x, table, values, indices = self.x, self.table, self.values, self.indices
        latents = len(table)
        return {
            "decode": {
                "ours": lambda: weighted_rows(values, indices, table),
                "embedding_bag": lambda: bag(values, indices, table),
                "gather, bmm": lambda: torch.bmm(values[:, None], table[indices])[:, 0],
                "CSR": lambda: self.csr() @ table,
                "dense": lambda: self.dense() @ table,
            },
            "to values": {
                "ours": lambda: row_products(x, indices, table),
                "embedding_bag": lambda: self.backward(values, table, to_values=True),
                "gather, bmm": lambda: torch.bmm(table[indices], x[:, :, None])[:, :, 0],
                "dense": lambda: (x @ table.t()).gather(1, indices),
            },
            "to rows": {
                "ours": lambda: scattered_rows(values, indices, x, latents),
                "embedding_bag": lambda: self.backward(values, table, to_values=False),
                "index_add": lambda: self.index_add(),
                "CSR": lambda: self.csr_transposed() @ x,
                "dense": lambda: self.dense().t() @ x,
            },
            "encode": {"ours": lambda: pick(x, table, table.new_zeros(latents), K)},
        }

    def dense(self) -> Tensor:
        """All activations ``[N, n]``."""
        return self.x.new_zeros(self.shape[:2]).scatter_(1, self.indices, self.values)

    def csr(self) -> Tensor:
        """The same as a sparse matrix."""
        starts = torch.arange(0, self.indices.numel() + 1, K, device=self.x.device)
        return torch.sparse_csr_tensor(starts, self.indices.flatten(), self.values.flatten(), self.shape[:2])

    def csr_transposed(self) -> Tensor:
        """Its transpose, sorted by latent."""
        samples, latents, _ = self.shape
        flat, order = self.indices.flatten().sort(stable=True)
        starts = torch.searchsorted(flat, torch.arange(latents + 1, device=flat.device))
        return torch.sparse_csr_tensor(starts, order // K, self.values.flatten()[order], (latents, samples))

    def index_add(self) -> Tensor:
        """Every product of a value and a sample, added up."""
        products = (self.values[:, :, None] * self.x[:, None]).flatten(0, 1)
        return torch.zeros_like(self.table).index_add_(0, self.indices.flatten(), products)

    def backward(self, values: Tensor, table: Tensor, to_values: bool) -> Tensor:
        """The gradient of torch's embedding bag, with its forward pass, which it cannot do without."""
        values, table = values.detach(), table.detach()
        wanted = (values if to_values else table).requires_grad_()
        return torch.autograd.grad(bag(values, self.indices, table), wanted, self.x)[0]


def bag(values: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """torch's own."""
    return F.embedding_bag(indices, table, per_sample_weights=values, mode="sum")


def seconds(calls: dict[str, Call], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, taking turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def agree(calls: dict[str, Call]) -> None:
    """Raise AssertionError unless all peers give the same sum."""
    expected = calls["ours"]()
    for call in calls.values():
        torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-3)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shapes", nargs="+", default=["small"], choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for samples, latents, width in (shape for kind in options.shapes for shape in SHAPES[kind]):
        for name, calls in Case(samples, latents, width, options.device).ways().items():
            if name != "encode":
                agree(calls)
            found = seconds(calls, options.rounds, options.device)
            shape = {"samples": samples, "latents": latents, "width": width, "k": K, "sum": name}
            rows += [{**shape, "way": way, "ms": 1e3 * taken} for way, taken in found.items()]
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe(options.device), "rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main()
