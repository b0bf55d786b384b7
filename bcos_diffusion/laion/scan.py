"""Read one file of metadata once: count its rows and offer those that name an object to the best of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bcos_diffusion.laion.best import Best, Row
from bcos_diffusion.laion.metadata import BATCH_ROWS, EXTRAS, Source, read_batches
from bcos_diffusion.laion.objects import Matcher, Named


@dataclass(frozen=True)
class Plan:
    """What is selected. Raises ValueError for a limit that leaves nothing.

    per_object: pairs kept for each object, those of highest similarity; the paper keeps 20,000.
    max_punsafe, max_pwatermark: keep only rows that the metadata rates at most this high; the paper has no such rule.
    min_side: keep only rows whose image has both sides at least this long; the paper has no such rule.
    """

    objects: tuple[Named, ...]
    per_object: int = 20_000
    max_punsafe: float | None = None
    max_pwatermark: float | None = None
    min_side: int | None = None

    def __post_init__(self) -> None:
        if self.per_object < 1:
            raise ValueError(f"per_object must be at least 1, got {self.per_object}")
        for name in ("max_punsafe", "max_pwatermark"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {limit}")
        if self.min_side is not None and self.min_side < 1:
            raise ValueError(f"min_side must be at least 1, got {self.min_side}")

    @property
    def limits(self) -> dict[str, tuple[str, float]]:
        """Extra column: what it is held against and the value; null never passes."""
        given = {
            "punsafe": ("at most", self.max_punsafe),
            "pwatermark": ("at most", self.max_pwatermark),
            "width": ("at least", self.min_side),
            "height": ("at least", self.min_side),
        }
        return {name: (side, float(value)) for name, (side, value) in given.items() if value is not None}


def scan(source: Source, plan: Plan, best: Sequence[Best], batch_rows: int = BATCH_ROWS) -> Counter[str]:
    """Offer the rows of one file to the best of each object; returns what was counted.

    Counted: ``rows``; ``no caption``, ``no url``, ``no similarity`` (null, empty or not finite) and
    ``refused by NAME`` (a limit of the plan), each row under the first that holds; ``not text``, a
    caption or URL that is not UTF-8, among rows that may name an object; ``matched NAME`` of each object.
    """
    matcher = Matcher(plan.objects)
    counts: Counter[str] = Counter(rows=0)
    for batch in read_batches(source, EXTRAS, batch_rows):
        counts["rows"] += batch.num_rows
        similarity = batch.column("similarity").to_numpy(zero_copy_only=False)
        good = _drop_incomplete(batch, similarity, plan, counts)
        places = np.flatnonzero(good & matcher.candidates(batch.column("caption")))
        rows = list(_rows(batch.take(pa.array(places)), counts))
        if not rows:
            continue
        named = matcher.named([row.caption for row in rows])
        for number, kept in enumerate(best):
            mine = np.flatnonzero(named[:, number])
            counts[f"matched {plan.objects[number].name}"] += len(mine)
            for place in mine:
                kept.add(rows[place])
    return counts


def _drop_incomplete(
    batch: pa.RecordBatch, similarity: NDArray[np.float64], plan: Plan, counts: Counter[str]
) -> NDArray[np.bool_]:
    """Which rows [N] have all that is needed and pass the plan's limits."""
    good = np.ones(batch.num_rows, np.bool_)

    def keep(passes: NDArray[np.bool_], reason: str) -> None:
        refused = int((good & ~passes).sum())
        if refused:
            counts[reason] += refused
        good[:] &= passes

    for name in ("caption", "url"):
        lengths = pc.binary_length(batch.column(name)).fill_null(0)
        keep(lengths.to_numpy(zero_copy_only=False) > 0, f"no {name}")
    keep(np.isfinite(similarity), "no similarity")
    for name, (side, limit) in plan.limits.items():
        values = batch.column(name).to_numpy(zero_copy_only=False)
        keep(values <= limit if side == "at most" else values >= limit, f"refused by {name}")
    return good


def _rows(batch: pa.RecordBatch, counts: Counter[str]) -> Iterator[Row]:
    texts = [batch.column(name).cast(pa.binary()).to_pylist() for name in ("url", "caption")]
    numbers = [batch.column(name).to_pylist() for name in EXTRAS]
    for number, (url, caption, similarity) in enumerate(
        zip(*texts, batch.column("similarity").to_pylist(), strict=True)
    ):
        try:
            extras = tuple(None if v[number] is None or v[number] != v[number] else v[number] for v in numbers)
            yield Row(similarity, url.decode(), caption.decode(), extras)
        except UnicodeDecodeError:
            counts["not text"] += 1
