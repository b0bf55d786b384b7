"""Webdataset shards as training data: any position of an endless, shuffled sequence, the same in every process."""

from __future__ import annotations

import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.laion.images import decode, square
from bcos_diffusion.laion.shard_index import Sample, load_index

CACHE = ".bcos"


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that decode; of each process its own, because a forked one has none of its parent's."""
    return ThreadPoolExecutor(threads)


class Skipped(NamedTuple):
    """A sample that cannot be trained on, and why."""

    shard: str
    key: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What was found in the shards. ``damaged``: shards that are no whole tar; what comes before the damage is used."""

    shards: int
    usable: int
    skipped: list[Skipped] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """Skipped samples by reason, the most frequent first."""
        return dict(Counter(sample.reason for sample in self.skipped).most_common())

    def __str__(self) -> str:
        lines = [f"{self.usable:,} usable samples in {self.shards:,} shards, {len(self.skipped):,} skipped"]
        lines += [f"  {count:,} skipped: {reason}" for reason, count in self.reasons.items()]
        lines += [f"  {shard}: {damage}" for shard, damage in self.damaged.items()]
        return "\n".join(lines)


class ShardData:
    """Images and captions of every ``*.tar`` in a folder, by position.

    Position p is sample p mod N of epoch p div N, and every epoch goes through all N usable samples once
    in an order of its own, drawn from (seed, epoch). Processes that read different positions therefore
    never read the same sample twice in an epoch, and none has to know of the others.

    folder: holds uncompressed tars as img2dataset writes them: ``KEY.jpg`` (or another image format),
    ``KEY.txt``, and perhaps ``KEY.json``. size: side of the square images in pixels. flip: mirror half of
    the positions, which ones being drawn from (seed, position). cache: where the index goes; without it,
    into ``folder/.bcos``. threads: how many decode images; without it, one per core, at most 8.
    progress: called with shards indexed and shards.

    The first use decodes every image once, to know which are usable; ``report`` says what was skipped.
    Raises FileNotFoundError without shards, ValueError when no sample is usable, OSError for a folder or
    cache that cannot be accessed.
    """

    def __init__(
        self,
        folder: Path,
        size: int = 64,
        flip: bool = False,
        seed: int = 0,
        cache: Path | None = None,
        threads: int | None = None,
        progress: Callable[[int, int], object] = lambda done, shards: None,
    ):
        if size < 1 or seed < 0:
            raise ValueError(f"size must be at least 1 and seed at least 0, got {size} and {seed}")
        self.folder, self.size, self.flip, self.seed = Path(folder), size, flip, seed
        shards = sorted(path for path in self.folder.glob("*.tar") if path.is_file())
        if not shards:
            raise FileNotFoundError(f"{self.folder}: no shards (*.tar) there")
        self.threads = threads or min(8, os.cpu_count() or 1)
        self._places: list[tuple[Path, Sample]] = []
        self._orders: dict[int, NDArray[np.int64]] = {}
        self.report = self._index(shards, self.folder / CACHE if cache is None else cache, progress)
        if not self._places:
            raise ValueError(f"{self.folder}: no usable sample; {' '.join(str(self.report).split())}")

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, positions: Iterable[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images ``[N, size, size, 3]`` and captions at any positions from 0 on; threads may call it at once.

        Raises IndexError for a negative position and ValueError when a shard changed since it was indexed.
        """
        positions = list(positions)
        numbers = [self.sample_at(position) for position in positions]
        images = np.empty((len(positions), self.size, self.size, 3), np.uint8)
        for row, image in enumerate(_pool(os.getpid(), self.threads).map(self.image, numbers)):
            images[row] = image[:, ::-1] if self._is_flipped(positions[row]) else image
        return images, [self._places[number][1].caption for number in numbers]

    def sample_at(self, position: int) -> int:
        """The number of the sample, in [0, N), at a position."""
        if position < 0:
            raise IndexError(f"position must be at least 0, got {position}")
        epoch, place = divmod(position, len(self))
        orders = self._orders  # never changed, only replaced: other threads may be reading it
        if epoch not in orders:
            orders = {number: order for number, order in orders.items() if abs(number - epoch) == 1}
            orders[epoch] = self._shuffled(epoch)
            self._orders = orders
        return int(orders[epoch][place])

    def image(self, number: int) -> NDArray[np.uint8]:
        """A sample's image ``[size, size, 3]``, never mirrored."""
        shard, sample = self._places[number]
        with shard.open("rb") as file:
            file.seek(sample.offset)
            data = file.read(sample.length)
        try:
            return square(decode(data, sample.orientation), self.size)
        except ValueError as error:
            raise ValueError(f"{shard} changed after it was indexed ({error})") from None

    @property
    def captions(self) -> list[str]:
        """The captions of all samples, by number."""
        return [sample.caption for _, sample in self._places]

    @property
    def objects(self) -> Counter[str]:
        """How many samples were selected for each object, where the shards say so."""
        return Counter(itertools.chain.from_iterable(sample.objects for _, sample in self._places))

    def _index(self, shards: list[Path], cache: Path, progress: Callable[[int, int], object]) -> Report:
        skipped: list[Skipped] = []
        damaged: dict[str, str] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL, about sizes, which we check ourselves, and odd metadata
            indices = _pool(os.getpid(), self.threads).map(partial(load_index, cache=cache), shards)
            for done, (shard, index) in enumerate(zip(shards, indices, strict=True), start=1):
                self._places += [(shard, sample) for sample in index.samples]
                skipped += [Skipped(shard.name, key, reason) for key, reason in index.skipped]
                if index.damage:
                    damaged[shard.name] = index.damage
                progress(done, len(shards))
        return Report(len(shards), len(self._places), skipped, damaged)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        # Raw draws and a stable sort: numpy promises that these stay the same from version to version.
        return np.argsort(np.random.PCG64([self.seed, epoch]).random_raw(len(self)), kind="stable")

    def _is_flipped(self, position: int) -> bool:
        return self.flip and bool(np.random.PCG64([self.seed, position, 1]).random_raw() & 1)
