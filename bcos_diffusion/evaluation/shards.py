"""Records of scenes on disk, some scenes a file: each file is there whole or not at all.

What is on disk is what is done. A shard is named by what it holds, so a folder can be gone on with, also for more
scenes than it was begun for, and read at any time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bcos_diffusion.evaluation.json_values import rounded
from bcos_diffusion.evaluation.setup import Record
from bcos_kernels.files import read_json, write_atomically

FOLDER = "shards"
SIZE = 10
"""Scenes a shard: what a kill can lose."""


@dataclass(frozen=True)
class Shard:
    """Scenes ``first`` up to ``end`` of a split, in one part of the protocol."""

    part: str
    split: str
    first: int
    end: int

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.part}-{self.split}-{self.first:05d}-{self.end:05d}.json"


def cut(part: str, split: str, count: int) -> list[Shard]:
    """The shards of the first ``count`` scenes."""
    return [Shard(part, split, first, min(first + SIZE, count)) for first in range(0, count, SIZE)]


class ShardFolder:
    """The records below ``OUT/shards``."""

    def __init__(self, out: Path):
        self.folder = out / FOLDER

    def has(self, shard: Shard) -> bool:
        """Whether a shard is done."""
        return (self.folder / shard.name).is_file()

    def write(self, shard: Shard, make: Callable[[Shard], list[Record]], workers: int = 1) -> None:
        """Make and write the records of a shard; the file appears when the last one is made.

        workers: how many processes share the time that it takes.
        """
        begin = time.perf_counter()
        records = rounded(make(shard))
        values = {"seconds": (time.perf_counter() - begin) / workers, "records": records}
        text = json.dumps(values, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(self.folder / shard.name, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def read(self, shards: Sequence[Shard]) -> list[Record]:
        """The records of those shards that are done, in order. Raises ValueError for a damaged file."""
        return [record for shard in shards for record in self._values(shard)["records"]]

    def seconds(self, shards: Sequence[Shard]) -> float:
        """How long the shards that are done took all together."""
        return math.fsum(self._values(shard)["seconds"] for shard in shards)

    def _values(self, shard: Shard) -> Record:
        path = self.folder / shard.name
        if not path.is_file():
            return {"seconds": 0.0, "records": []}
        values = read_json(path)
        if not isinstance(values, dict) or values.keys() != {"seconds", "records"}:
            raise ValueError(f"{path} is not a shard of an evaluation; remove it to have it made again")
        return values
