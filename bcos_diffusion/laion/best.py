"""The N best rows of a stream, in memory for 2N, whatever the order in which rows come."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple


class Row(NamedTuple):
    """A pair of image and caption; ``extras`` are further numbers about it, None where unknown."""

    similarity: float
    url: str
    caption: str
    extras: tuple[float | None, ...] = ()

    @property
    def key(self) -> str:
        """What makes a pair the same pair: 32 hexadecimal digits of its URL and caption."""
        return hashlib.blake2b(f"{self.url}\0{self.caption}".encode(), digest_size=16).hexdigest()


class Best:
    """Keeps the ``limit`` rows of highest similarity, each pair once.

    Ties go to the lower key, and of a pair that comes twice the better row stays, so the result depends
    neither on the order of rows nor on how they were split. At most ``2 * limit`` rows are held.
    """

    def __init__(self, limit: int):
        if limit < 1:
            raise ValueError(f"the number of rows to keep must be at least 1, got {limit}")
        self.limit = limit
        self.floor = -math.inf
        """Rows below this similarity cannot be among the best any more."""
        self._rows: dict[str, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Offer one row."""
        if row.similarity < self.floor:
            return
        key = row.key
        before = self._rows.get(key)
        if before is not None and _worth(before) >= _worth(row):
            return
        self._rows[key] = row
        if len(self._rows) >= 2 * self.limit:
            self._rows = dict(self.items())
            self.floor = next(reversed(self._rows.values())).similarity

    def items(self) -> list[tuple[str, Row]]:
        """Keys and rows, the best first, at most ``limit``."""
        return sorted(self._rows.items(), key=lambda item: (-item[1].similarity, item[0]))[: self.limit]


def _worth(row: Row) -> tuple[float, tuple[tuple[bool, float], ...]]:
    return row.similarity, tuple((value is not None, value or 0.0) for value in row.extras)
