"""Read the features of many images to disk: by any number of processes, resumable, the same bytes in every way.

Images are read in batches cut from their order, the last one filled up with its own last image, so that every pass has
one shape; the noise of image i at t belongs to (seed, i, t). So a feature depends neither on the number of processes
nor on where a run was stopped.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bcos_diffusion.encoding import to_bytes
from bcos_diffusion.features import conditions
from bcos_diffusion.features.folder import FeatureFolder
from bcos_diffusion.features.plan import DTYPES, IMAGES, Plan, Shard, key_name, lay_out
from bcos_diffusion.features.reading import read
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.subject import Subject
from bcos_diffusion.many import Share
from bcos_diffusion.workers import spread


@dataclass(frozen=True)
class _Work:
    """What a process needs to make any shard."""

    subject: Subject
    folder: FeatureFolder

    @property
    def plan(self) -> Plan:
        return self.folder.layout.plan


def extract(
    subject: Subject,
    plan: Plan,
    out: Path,
    workers: int = 1,
    share: Share = Share(),
    begin: Callable[[str, int], object] = lambda summary, shards: None,
    advance: Callable[[Shard], object] = lambda shard: None,
) -> FeatureStore | None:
    """Read features into ``out``, going on with what is there; returns them, or None while others' shares are missing.

    workers: processes of one thread each; more than one is for a CPU. share: of the shards, for several machines that
    share the folder. begin: called before the first pass with one line that says exactly how much will be written, and
    with the number of shards still to be made here; advance: called after each of them. Raises ValueError for a plan
    that the subject cannot read and for a folder that was begun with other settings; OSError where the disk has no room
    for it or cannot be written. What is done by then stays.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    folder = FeatureFolder(out, lay_out(subject, plan))
    identity = subject.settings()
    folder.begin(identity)
    _check_room(folder)
    mine = [
        shard
        for number, shard in enumerate(folder.layout.shards)
        if number % share.world == share.rank and not folder.has(shard)
    ]
    begin(folder.layout.summary(), len(mine))
    folder.write_labels()
    spread(make_shard, _Work(subject, folder), mine, workers, advance)
    return FeatureStore(out) if folder.finish(identity) else None


def make_shard(work: _Work, shard: Shard) -> Shard:
    """Read and write the features of one shard."""
    plan, parts = work.plan, dict[str, list[Tensor]]()
    for first in range(shard.first, shard.end, plan.batch):
        numbers = list(range(first, min(first + plan.batch, shard.end)))
        for name, values in read_batch(work.subject, plan, numbers).items():
            parts.setdefault(name, []).append(values)
    work.folder.write(shard, {name: torch.cat(values) for name, values in parts.items()})
    return shard


@torch.no_grad()
def read_batch(subject: Subject, plan: Plan, numbers: list[int]) -> dict[str, Tensor]:
    """The features of up to ``plan.batch`` images, by :func:`~bcos_diffusion.features.plan.key_name`, on the CPU.

    Raises ValueError for features that the type of the plan cannot hold.
    """
    filled = numbers + [numbers[-1]] * (plan.batch - len(numbers))
    pictures = plan.images.batch(filled)
    x_0 = None if plan.images.reads_runs else subject.encode(pictures)
    said = {
        name: subject.condition(conditions.texts(subject, plan.images, name, filled, pictures))
        for name in plan.conditionings
    }
    found: dict[str, Tensor] = {}
    for t in plan.timesteps:
        x_t, at = noised(subject, plan, x_0, t, filled)
        for name, condition in said.items():
            values = read(subject, x_t, at, condition, plan.layers, plan.pooled)
            for layer, value in values.items():
                found[key_name(layer, t, name)] = _stored(value[: len(numbers)], layer, plan.dtype)
    if plan.images.drawn:
        found[IMAGES] = to_bytes(pictures[: len(numbers)])
    return found


def noise_seed(seed: int, number: int, t: int) -> int:
    """The seed of the noise of image ``number`` at timestep t, from the plan's: the same on every machine."""
    digest = hashlib.sha256(f"{seed} {number} {t}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch's seeds are signed


def noised(subject: Subject, plan: Plan, x_0: Tensor | None, t: int, numbers: list[int]) -> tuple[Tensor, int]:
    """x_t of images, and the timestep that it is at. x_0: of these images, None where x_t of runs are read."""
    states = plan.images.states(numbers, t)
    if states is not None:
        return states
    assert x_0 is not None
    return subject.noise(x_0, t, [noise_seed(plan.seed, number, t) for number in numbers]), t


def _stored(values: Tensor, layer: str, dtype: str) -> Tensor:
    stored = values.to(DTYPES[dtype]).cpu()
    if not stored.isfinite().all():
        reason = "bfloat16 or float32 can hold" if values.isfinite().all() else "the network made infinite"
        raise ValueError(f"features of layer {layer} have values that {dtype} cannot hold and {reason}")
    return stored


def _check_room(folder: FeatureFolder) -> None:
    """Raise OSError before anything is made, where not all of it would fit."""
    needed, free = folder.bytes_left(), shutil.disk_usage(folder.out).free
    if needed > free:
        raise OSError(
            f"{folder.out} needs {needed:,} bytes more, its disk has {free:,} free; read fewer images, layers,"
            " timesteps or conditionings, pool them, or store them in float16"
        )
