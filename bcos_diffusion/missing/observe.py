"""Draw a corpus once, and keep what is needed of it to calibrate and to measure: a few numbers per word and moment."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bcos_diffusion.encoding import decode, to_bytes
from bcos_diffusion.missing.calibration import fingerprint
from bcos_diffusion.missing.corpus import Asked, asked
from bcos_diffusion.missing.features import NAMES, object_features
from bcos_diffusion.missing.heat import Heat, heat_features
from bcos_diffusion.missing.run import Run
from bcos_diffusion.missing.scoring import objects
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import read_tensors, write_tensors

SHARES = (0.2, 0.4, 1.0)
"""Which shares of the steps are looked at: steps 5, 10 and 25 of 25."""
BATCH = 8

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Observed:
    """A picture on its way, at each of C moments, and the n objects that its prompt names.

    words: the prompt; named: which of them are the objects; images: the x_0 predicted then, rgb uint8
    ``[C, 3, H, W]``, the last the picture itself; exact, heat: features of contributions ``[C, n, 5]`` and of
    attention ``[C, n, 6]``, float64.
    """

    asked: Asked
    words: tuple[str, ...]
    named: tuple[int, ...]
    images: Tensor
    exact: Tensor
    heat: Tensor

    @property
    def mass(self) -> Tensor:
        """The absolute share of the mass (Eq. 8) of each object, ``[C, n]``: one of its features."""
        return self.exact[..., NAMES.index("mass")]


def observe(
    pipeline: BcosDiffusionPipeline,
    split: str,
    count: int,
    seed: int = 0,
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> list[Observed]:
    """Draw ``count`` pictures of a split of :func:`asked` and look at each at :data:`SHARES` of its steps.

    Other arguments as for :func:`observe_all`. Raises ValueError as :func:`asked`, and for a model that cannot be
    explained.
    """
    return observe_all(pipeline, asked(split, count, seed, pipeline.default_size[0]), cache, advance)


def observe_all(
    pipeline: BcosDiffusionPipeline,
    wanted: Sequence[Asked],
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> list[Observed]:
    """Draw these pictures and look at each at :data:`SHARES` of its steps.

    cache: a folder where what was seen is kept, by weights, prompts and seeds; advance: called with how many pictures
    are new.
    """
    path = None if cache is None else cache / f"{_key(pipeline, wanted)}.safetensors"
    if path is not None and path.is_file():
        return _unpack(pipeline, wanted, read_tensors(path))
    found: dict[int, Observed] = {}
    for numbers in _batches(pipeline, wanted):
        for number, one in zip(numbers, _look(pipeline, [wanted[i] for i in numbers]), strict=True):
            found[number] = one
        advance(len(numbers))
    ordered = [found[i] for i in range(len(wanted))]
    if path is not None:
        write_tensors(path, _pack(ordered))
    return ordered


def _key(pipeline: BcosDiffusionPipeline, wanted: Sequence[Asked]) -> str:
    """What the numbers depend on: weights, defaults, prompts and seeds."""
    text = json.dumps([fingerprint(pipeline.model), vars(pipeline.defaults), [vars(one) for one in wanted]])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _batches(pipeline: BcosDiffusionPipeline, wanted: Sequence[Asked]) -> list[list[int]]:
    """Pictures with equally many words together: a stack has as many parts as its longest prompt has words."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(wanted):
        groups[int(pipeline.tokenize(one.prompt).value_mask.sum())].append(number)
    return [numbers[i : i + BATCH] for numbers in groups.values() for i in range(0, len(numbers), BATCH)]


def _look(pipeline: BcosDiffusionPipeline, wanted: Sequence[Asked]) -> list[Observed]:
    job = pipeline.job([a.prompt for a in wanted], [None] * len(wanted), [a.seed for a in wanted])
    words = [tuple(job.prompts(i).words[0]) for i in range(len(job))]
    named = [tuple(objects(w)) for w in words]
    seen: list[list[tuple[Tensor, ...]]] = [[] for _ in wanted]
    run, heat = Run(pipeline, job), Heat()
    with heat.listening(run.unet, job.rows):
        for share in SHARES:
            run.advance(max(1, round(share * job.steps)))
            heats, images = heat.words(job), decode(run.predicted[0]).clamp(0, 1)
            for i, own in enumerate(named):
                maps = run.words(i)
                seen[i].append((to_bytes(images[i]), object_features(maps, own), heat_features(heats[i], own)))
    stacked = [[torch.stack(parts) for parts in zip(*moments, strict=True)] for moments in seen]
    return [
        Observed(*known, *parts) for known, parts in zip(zip(wanted, words, named, strict=True), stacked, strict=True)
    ]


_PARTS = ("exact", "heat")


def _pack(observed: Sequence[Observed]) -> dict[str, Tensor]:
    """As tensors: what prompts say is known from their numbers."""
    packed = {name: torch.cat([getattr(o, name) for o in observed], dim=1) for name in _PARTS}
    return packed | {"images": torch.stack([o.images for o in observed])}


def _unpack(pipeline: BcosDiffusionPipeline, wanted: Sequence[Asked], packed: dict[str, Tensor]) -> list[Observed]:
    found, first = [], 0
    for number, one in enumerate(wanted):
        words = tuple(pipeline.tokenize(one.prompt).words[0])
        named = tuple(objects(words))
        own = slice(first, first + len(named))
        parts = (packed[name][:, own] for name in _PARTS)
        found.append(Observed(one, words, named, packed["images"][number], *parts))
        first = own.stop
    return found
