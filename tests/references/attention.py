"""Attention probabilities and heat maps the slow way, and small pipelines of every kind that attend."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.text.frozen import FrozenText
from bcos_kernels.modules.attention import MultiHeadAttention
from references.clip import save_clip
from references.paper_models import TINY, shaken
from references.tiny import tiny_pipeline

KINDS = ("unet", "dit", "bcos", "vanilla")


def pipelines(folder: Path) -> dict[str, BcosDiffusionPipeline]:
    """Small pipelines in float64: ours on scenes' words, the paper's of B-cos and of ordinary layers on a CLIP."""
    made = {"unet": tiny_pipeline(), "dit": tiny_pipeline(network="dit")}
    clip = save_clip(folder / "clip")
    for kind in ("bcos", "vanilla"):
        torch.manual_seed(0)
        model = TextToImage(replace(TINY, layers=kind), FrozenText.load(clip, special="visible"))
        shaken(model.unet)
        made[kind] = BcosDiffusionPipeline(model.double(), Defaults(steps=3, guidance=2.5, update="standard"), kind)
    return made


@contextmanager
def projections(network: nn.Module) -> Iterator[dict[str, list[dict[str, Tensor]]]]:
    """What the query, key and value projections of every attention give in the block, and what its values become.

    By layer, one entry a call: "query", "key" and "value" ``[N, P or L, heads * head_dim]`` and "read", the input of
    the output projection.
    """
    found: dict[str, list[dict[str, Tensor]]] = {}
    handles = []

    def keep(name: str, part: str):  # type: ignore[no-untyped-def]
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if part == "query":
                found.setdefault(name, []).append({})
            found[name][-1]["read" if part == "out" else part] = args[0] if part == "out" else output

        return hook

    for name, module in network.named_modules():
        if isinstance(module, MultiHeadAttention):
            for part in ("query", "key", "value", "out"):
                handles.append(getattr(module, part).register_forward_hook(keep(name, part)))
    yield found
    for handle in handles:
        handle.remove()


def slow_probabilities(query: Tensor, key: Tensor, heads: int, shown: Tensor) -> Tensor:
    """One row: query ``[P, heads * d]``, key ``[L, heads * d]``, shown ``[L]``. Returns ``[heads, P, L]``, by loops."""
    width = query.shape[1] // heads
    found = torch.zeros(heads, len(query), len(key), dtype=query.dtype)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for p in range(len(query)):
            powers = [
                math.exp(float(query[p, part] @ key[i, part]) / math.sqrt(width)) if shown[i] else 0.0
                for i in range(len(key))
            ]
            for i, power in enumerate(powers):
                found[h, p, i] = power / sum(powers) if sum(powers) else 0.0
    return found


def bicubic_axis(short: int, long: int) -> Tensor:
    """Keys' bicubic kernel with a = -0.75, edges repeated, pixels as areas: a matrix ``[long, short]``."""

    def kernel(x: float, a: float = -0.75) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    matrix = torch.zeros(long, short, dtype=torch.float64)
    for y in range(long):
        at = (y + 0.5) * short / long - 0.5
        for i in range(math.floor(at) - 1, math.floor(at) + 3):
            matrix[y, min(max(i, 0), short - 1)] += kernel(at - i)
    return matrix


def slow_bicubic(map: Tensor, size: tuple[int, int]) -> Tensor:
    """``[h, w]`` to ``[H, W]``."""
    return bicubic_axis(map.shape[0], size[0]) @ map @ bicubic_axis(map.shape[1], size[1]).T
