"""Features of pictures by a fixed network, kept on disk in shards: Inception's for FID, else those of a named one."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bcos_kernels.files import read_tensors, write_tensors

SHARD = 500
BATCH = 50
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
_WIDTHS = (3, 48, 96, 192)


@dataclass(frozen=True)
class Extractor:
    """A fixed network. name: as results state it; metric: what a Fréchet distance on it may be called; extract: uint8
    pictures ``[N, 3, H, W]`` to features ``[N, D]``."""

    name: str
    metric: str
    extract: Callable[[Tensor], Tensor]


def inception(path: Path, device: torch.device) -> Extractor:
    """torch-fidelity's Inception-v3 with weights from a file. Raises ValueError or OSError naming what is missing."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; FID needs {INCEPTION} from the releases of toshas/torch-fidelity. Without"
            " --inception the distance is measured on a fixed network's features, and is no FID"
        )
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)  # the library would load any pickle
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a file of weights ({type(error).__name__})") from None
    if not isinstance(held, dict) or "Conv2d_1a_3x3.conv.weight" not in held:
        raise ValueError(f"{path} does not hold the weights of torch-fidelity's Inception ({INCEPTION})")
    create = library("utils").create_feature_extractor
    try:
        network = create("inception-v3-compat", ["2048"], cuda=False, verbose=False,
                         feature_extractor_weights_path=str(path)).to(device)  # fmt: skip
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit torch-fidelity's Inception: {' '.join(str(error).split())[:200]}"
        ) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return Extractor(f"inception-v3-compat-{digest}", "FID", lambda x: network(x.to(device))[0].cpu())


def library(part: str) -> Any:
    """A module of torch-fidelity. Raises ValueError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(f"torch_fidelity.{part}")
    except ImportError:
        raise ValueError("measuring quality needs torch-fidelity: pip install 'bcos-kernels[eval]'") from None


def random_convnet(device: torch.device) -> Extractor:
    """A convolutional network of fixed random weights: three layers, each halving the size, their means as features.

    Weights are drawn by NumPy's PCG64 from seed 0, whose stream does not change between versions.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    weights = [
        torch.from_numpy(rng.standard_normal((c, b, 3, 3)) * (2 / (9 * b)) ** 0.5).float().to(device)
        for b, c in pairwise(_WIDTHS)
    ]

    def extract(pictures: Tensor) -> Tensor:
        x = pictures.to(device).float() / 127.5 - 1
        found = []
        for weight in weights:
            x = F.conv2d(x, weight, stride=2, padding=1).relu()
            found.append(x.mean((2, 3)))
        return torch.cat(found[1:], dim=1).cpu()

    return Extractor("random-convnet", "Fréchet distance on random-convnet features", extract)


@torch.no_grad()
def features(
    extractor: Extractor,
    key: str,
    count: int,
    load: Callable[[Sequence[int]], NDArray[np.uint8]],
    cache: Path,
    advance: Callable[[int], object],
) -> NDArray[np.float64]:
    """Features ``[count, D]`` of pictures by number, from ``cache`` where they are there.

    key: what the pictures are, in a few words that make a file name; load: numbers to pictures ``[N, H, W, 3]``.
    """
    folder = cache / f"{key}-{extractor.name}"
    parts = []
    for first in range(0, count, SHARD):
        last = min(first + SHARD, count)
        path = folder / f"{first:06d}-{last:06d}.safetensors"
        if not path.exists():
            batches = (range(i, min(i + BATCH, last)) for i in range(first, last, BATCH))
            found = [
                extractor.extract(torch.from_numpy(load(batch)).permute(0, 3, 1, 2).contiguous()) for batch in batches
            ]
            write_tensors(path, {"features": torch.cat(found)})
        parts.append(read_tensors(path)["features"])
        advance(last - first)
    return torch.cat(parts).double().numpy()
