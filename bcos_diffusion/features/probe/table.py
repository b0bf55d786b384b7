"""Probes of many layers and timesteps beside what raw pixels say: each is kept when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.evaluation.kept import kept
from bcos_diffusion.features.again import Again
from bcos_diffusion.features.key import Key
from bcos_diffusion.features.probe.accuracy import Accuracy, margin
from bcos_diffusion.features.probe.baselines import chance, majority
from bcos_diffusion.features.probe.diff_c_training import train_diff_c
from bcos_diffusion.features.probe.linear import fit_linear
from bcos_diffusion.features.probe.splits import Split, stratified_split
from bcos_diffusion.features.sae.origin import digest
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.stored_rows import StoredRows

X_T, IMAGES = "x_t", "images"


@dataclass(frozen=True)
class Question:
    """What is asked of every layer: a factor's class, by a linear probe or Diff-C, of few images of each or all."""

    factor: str
    probe: str = "linear"
    few: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One probe. what: the name of a layer, "x_t" or "images"; t: None of images; found: as its result says it."""

    what: str
    t: int | None
    found: dict[str, Any]

    @property
    def test(self) -> Accuracy:
        """What it said of the images that it is judged on."""
        predicted, truth = (torch.tensor(self.found[name]) for name in ("predicted", "truth"))
        return Accuracy(predicted, truth, len(self.found["test"]["per_class"]))


@dataclass(frozen=True)
class Table:
    """The probes of a store's features.

    again: the inputs of the extraction, without which there are no rows of x_t. Raises ValueError for a factor that
    the images do not have, too few images of it, and for Diff-C of pooled features.
    """

    store: FeatureStore
    question: Question
    again: Again | None
    split: Split = field(init=False)

    def __post_init__(self) -> None:
        asked, store = self.question, self.store
        if asked.factor not in store.classes:
            there = ", ".join(store.classes) or "none: a folder of images has labels where it has folders of classes"
            raise ValueError(f"there is no factor {asked.factor!r} in {store.folder}, but {there}")
        if asked.probe == "diff-c" and store.pooled:
            raise ValueError(f"the features in {store.folder} are pooled, Diff-C reads places; extract with --spatial")
        object.__setattr__(self, "split", self._every if asked.few is None else self._every.few(self.labels, asked.few))

    @property
    def labels(self) -> Tensor:
        """The classes of the images ``[N]``, -1 where there is none."""
        return self.store.labels[self.question.factor]

    def rows(self, keys: Sequence[Key], out: Path, advance: Callable[[], object] = lambda: None) -> list[Row]:
        """The probes of layers, of x_t at their timesteps and of the images; those below ``out`` are not made again."""
        wanted: list[tuple[str, int | None, Key | None]] = [(key.layer, key.t, key) for key in keys]
        if self.again is not None:
            wanted += [(X_T, t, None) for t in dict.fromkeys(key.t for key in keys)]
        found = []
        for what, t, key in [*wanted, (IMAGES, None, None)]:
            found.append(Row(what, t, self._measured(out, what, t, key)))
            advance()
        return found

    def _measured(self, out: Path, what: str, t: int | None, key: Key | None) -> dict[str, Any]:
        asked = {name: getattr(self.question, name) for name in ("factor", "probe", "few", "seed")}
        said = key.conditioning if key else None
        settings = {"features": digest(self.store), **asked, "what": what, "t": t, "conditioning": said}
        parts = [*asked.values(), said, what, t]
        name = "-".join(str(part) for part in parts if part is not None).replace("/", "_").replace(" ", "_")
        return dict(kept(out / f"{name}.json", settings, lambda: self._measure(self._read(what, t, key)))["found"])

    def _read(self, what: str, t: int | None, key: Key | None) -> Tensor:
        """What a probe looks at: ``[N, D, H, W]``, or pooled ``[N, D]``."""
        if key is not None and self.question.probe == "diff-c":
            return self.store.read(*key)
        if key is not None:
            rows = StoredRows(self.store, key)
            return rows.rows(torch.arange(len(rows)))
        if what == IMAGES or self.again is None:
            return self.store.images(slice(None))
        assert t is not None
        return self.again.every_x_t(t)

    def _measure(self, features: Tensor) -> dict[str, Any]:
        asked, count = self.question, len(self.store.classes[self.question.factor])
        if asked.probe == "diff-c":
            result: Any = train_diff_c(features, self.labels, count, self.split, asked.seed)
        else:
            result = fit_linear(features.flatten(1), self.labels, count, self.split)
        return {**result.to_dict(), **result.test.said()}

    @property
    def _every(self) -> Split:
        """The split, with all images to learn from."""
        return stratified_split(self.labels, self.question.seed)

    def chance(self) -> dict[str, Any]:
        """What must be beaten without looking: guessing, and the commonest class."""
        count = len(self.store.classes[self.question.factor])
        return {"chance": chance(count), "majority": majority(self.labels, count, self._every).to_dict()}

    def sizes(self) -> dict[str, int]:
        """How many images there are to learn from, to choose by and to judge on."""
        return {name: len(part) for name, part in self.split.labelled(self.labels).parts().items()}


def margins(rows: Sequence[Row]) -> list[dict[str, float] | None]:
    """By how much each row is more accurate than x_t of its timestep, or than the images where there is none of x_t.

    None for these themselves. The intervals are of a bootstrap over the same images.
    """
    plain = {row.t: row for row in rows if row.what in (X_T, IMAGES)}
    return [None if row.what in (X_T, IMAGES) else margin(row.test, plain.get(row.t, plain[None]).test) for row in rows]


def lines(rows: Sequence[Row]) -> list[str]:
    """The table for people, in percent."""
    width = max(len(row.what) for row in rows)
    over = "x_t" if any(row.what == X_T for row in rows) else "images"
    found = [f"{'':{width}}     t  top-1 % [95% interval]    more than {over}"]
    for row, more in zip(rows, margins(rows), strict=True):
        top = _percent(row.found["test"]["top1"], row.found["test"]["low"], row.found["test"]["high"])
        gained = "" if more is None else _percent(more["value"], more["low"], more["high"], "+")
        found.append(f"{row.what:{width}}  {'' if row.t is None else row.t:>4}  {top:<24}  {gained}".rstrip())
    return found


def _percent(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
