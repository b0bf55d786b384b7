"""Records of scenes on disk, some scenes a file: each file is there whole or not at all.

What is on disk is what is done. A shard is named by what it holds, so a folder can be gone on with, also for more
scenes than it was begun for, and read at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
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

    def write(self, shard: Shard, record: Callable[[str, int], Record]) -> None:
        """Make and write the records of a shard; the file appears when the last one is made."""
        records = [rounded(record(shard.split, number)) for number in range(shard.first, shard.end)]
        text = json.dumps(records, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(self.folder / shard.name, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def read(self, shards: Sequence[Shard]) -> Iterator[Record]:
        """The records of those shards that are done, in order. Raises ValueError for a damaged file."""
        for shard in shards:
            if self.has(shard):
                yield from read_json(self.folder / shard.name)
