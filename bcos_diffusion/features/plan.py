"""What is extracted: images, layers, timesteps and conditionings, in which form; and how many bytes that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bcos_diffusion.features import conditions
from bcos_diffusion.features.images import Images
from bcos_diffusion.features.layers import find
from bcos_diffusion.features.reading import read
from bcos_diffusion.features.subject import Subject

IMAGES = "images"
"""The name, in a shard, of images that exist nowhere else."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SHARD_IMAGES, _SHARD_BYTES = 128, 2**26
Contents = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of every tensor of a file, by name."""
_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.uint8: "U8"}


@dataclass(frozen=True)
class Plan:
    """What to read.

    images: the source, of which the first ``count`` are read; layers: names or aliases; timesteps: of the noise that is
    added and of the network, 0 the least; conditionings: as :mod:`~bcos_diffusion.features.conditions` has them;
    pooled: the mean over places instead of all places; dtype: what features are stored in; batch: images a forward
    pass, on which the last digit of a feature may depend; seed: of the noise. Raises ValueError for values that cannot
    be.
    """

    images: Images
    count: int
    layers: tuple[str, ...]
    timesteps: tuple[int, ...]
    conditionings: tuple[str, ...] = ("empty",)
    pooled: bool = True
    dtype: str = "float32"
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "timesteps", "conditionings"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be at least one, each once, got {', '.join(map(str, values)) or 'none'}")
        if "" in self.conditionings:
            raise ValueError("a prompt without words is called empty")
        if not 1 <= self.count <= len(self.images):
            raise ValueError(f"count must be between 1 and {len(self.images)}, as many images there are; {self.count}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def check(self, subject: Subject) -> None:
        """Raise ValueError for what this subject cannot be asked: layers, timesteps, sizes, texts."""
        find(subject.layers, self.layers)
        if wrong := [t for t in self.timesteps if not 0 <= t < subject.timesteps]:
            raise ValueError(f"timesteps must be in [0, {subject.timesteps}), got {wrong[0]}")
        if self.images.size != subject.size:
            raise ValueError(f"the images have a side of {self.images.size}, the model reads {subject.size}")
        if self.images.reads_runs and self.images.settings()["weights"] != subject.settings().get("weights"):
            raise ValueError("x_t of a run is read by the model that drew it; another one reads the noised pictures")
        for conditioning in self.conditionings:
            conditions.check(subject, self.images, conditioning)

    def settings(self) -> dict[str, Any]:
        """Everything that features depend on beside the subject, as JSON-ready values."""
        lists = {name: list(getattr(self, name)) for name in ("layers", "timesteps", "conditionings")}
        rest = {name: getattr(self, name) for name in ("count", "pooled", "dtype", "batch", "seed")}
        return {"images": self.images.settings(), **lists, **rest}


@dataclass(frozen=True)
class Shard:
    """Images ``first`` up to ``end``."""

    first: int
    end: int

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.first:08d}-{self.end:08d}.safetensors"


@dataclass(frozen=True)
class Layout:
    """Which files there will be, and what is in them.

    shapes: of the features of one image, by layer; shards: in order; all hold every layer, timestep and conditioning of
    their images, and where images exist nowhere else these too, as bytes.
    """

    plan: Plan
    shapes: dict[str, tuple[int, ...]]
    shards: tuple[Shard, ...]

    @property
    def keys(self) -> list[tuple[str, int, str]]:
        """Layer, timestep and conditioning of every tensor of features in a shard."""
        return keys(self.plan.layers, self.plan.timesteps, self.plan.conditionings)

    def tensors(self, shard: Shard) -> Contents:
        """Type and shape of everything in a shard's file, by name."""
        n, dtype = shard.end - shard.first, DTYPES[self.plan.dtype]
        found = {key_name(*key): (dtype, (n, *self.shapes[key[0]])) for key in self.keys}
        if self.plan.images.drawn:
            found[IMAGES] = torch.uint8, (n, 3, self.plan.images.size, self.plan.images.size)
        return found

    def labels(self) -> Contents:
        """Type and shape of everything in the file of labels, by name; a placeholder where there are none."""
        labels: Contents = {factor: (torch.int64, (self.plan.count,)) for factor in self.plan.images.classes}
        return labels or {"none": (torch.int64, (0,))}

    def shard_bytes(self, shard: Shard) -> int:
        """How long a shard's file is."""
        return file_bytes(self.tensors(shard))

    @property
    def total_bytes(self) -> int:
        """How long all files of tensors are together, exactly; settings and index are a few kilobytes more."""
        return sum(map(self.shard_bytes, self.shards)) + file_bytes(self.labels())

    def summary(self) -> str:
        """One line for people: how much of what."""
        many = f"{self.plan.count:,} images × {len(self.keys)} (layers × timesteps × conditionings)"
        return f"{many}: {self.total_bytes:,} bytes in {len(self.shards)} shards"


def keys(layers: Sequence[str], timesteps: Sequence[int], conditionings: Sequence[str]) -> list[tuple[str, int, str]]:
    """Every layer at every timestep under every conditioning."""
    return [(layer, t, said) for said in conditionings for t in timesteps for layer in layers]


def key_name(layer: str, t: int, conditioning: str) -> str:
    """The name of a tensor of features in a shard."""
    return f"{layer}|{t}|{conditioning}"


def lay_out(subject: Subject, plan: Plan) -> Layout:
    """What extraction will write, by one dry pass over an empty image. Raises ValueError as :meth:`Plan.check`."""
    plan.check(subject)
    x_t = subject.noise(subject.encode(torch.zeros(1, 3, subject.size, subject.size)), plan.timesteps[0], [0])
    dry = read(subject, x_t, plan.timesteps[0], subject.condition([""]), plan.layers, plan.pooled)
    shapes = {name: tuple(value.shape[1:]) for name, value in dry.items()}
    one = Layout(plan, shapes, ())
    per_image = max(1, file_bytes(one.tensors(Shard(0, 1))))
    batches = max(1, min(_SHARD_IMAGES, _SHARD_BYTES // per_image) // plan.batch)
    size = batches * plan.batch  # so that no batch is part of two shards
    shards = tuple(Shard(first, min(first + size, plan.count)) for first in range(0, plan.count, size))
    return Layout(plan, shapes, shards)


def file_bytes(tensors: Contents) -> int:
    """How long a safetensors file of these tensors is: 8 bytes, the header, padded to a multiple of 8, and the data."""
    header, end = {}, 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0].encode())):
        begin, end = end, end + dtype.itemsize * int(torch.Size(shape).numel())
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return 8 + -(-len(text.encode()) // 8) * 8 + end
