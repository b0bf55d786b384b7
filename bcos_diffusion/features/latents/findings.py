"""What the latents of one dictionary tell: their top images, label purity and monosemanticity, as numbers and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations
from bcos_diffusion.features.latents.monosemanticity import LEAST_IMAGES, Monosemanticity, monosemanticity
from bcos_diffusion.features.latents.purity import Purity, label_purity
from bcos_diffusion.features.latents.top import TopImages, top_images

_NONE = "—"


@dataclass(frozen=True, eq=False)
class Findings:
    """top: images by latent; purity: by factor; meaning: which latents tell which classes, None without labels;
    classes: names by factor."""

    top: TopImages
    purity: dict[str, Purity]
    meaning: Monosemanticity | None
    classes: dict[str, tuple[str, ...]]

    def strongest(self, count: int) -> Tensor:
        """The latents of highest mean activation; where none is active on many images, among the most frequent ones."""
        found = self.top.strongest(count)
        return found if len(found) else self.top.strongest(count, more_than=int(self.top.active.max()) // 2)

    def purest(self, factor: str, count: int) -> Tensor:
        """The latents that tell a class of a factor: the most selective of each class first, then the next of each.

        Of equally selective ones those of more images come first.
        """
        assert self.meaning is not None
        reading = self.meaning.readings[factor]
        telling = (reading.tells & self.meaning.judged).nonzero().flatten().tolist()
        rank = {j: (-float(reading.selectivity[j]), -int(self.top.active[j]), j) for j in telling}
        before: dict[int, int] = {}
        turn: dict[int, int] = {}
        for j in sorted(telling, key=rank.__getitem__):
            best = int(reading.best[j])
            turn[j] = before[best] = before.get(best, -1) + 1
        return torch.tensor(sorted(telling, key=lambda j: (turn[j], rank[j]))[:count], dtype=torch.int64)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, NaN where nothing was measured."""
        counts = {"latents": len(self.top.active), "active": int(self.top.alive.sum()), "images": self.top.images}
        purity = {factor: found.to_dict() for factor, found in self.purity.items()}
        if self.meaning is None:
            return {**counts, "purity": purity, "monosemanticity": None, "telling": []}
        meaning = self.meaning.to_dict()
        return {**counts, "purity": purity, "monosemanticity": meaning, "telling": self._telling()}

    def _telling(self) -> list[dict[str, Any]]:
        """The latents that tell anything, with what each of them tells."""
        assert self.meaning is not None
        told: dict[int, dict[str, Any]] = {}
        for factor, reading in self.meaning.readings.items():
            for j in (reading.tells & self.meaning.judged).nonzero().flatten().tolist():
                name = self.classes[factor][int(reading.best[j])]
                told.setdefault(j, {})[factor] = {"class": name, "selectivity": float(reading.selectivity[j])}
        return [
            {"latent": j, "images": int(self.top.active[j]), "mean": float(self.top.mean[j]), "tells": told[j]}
            for j in sorted(told)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Of all latents: top images with values and places, on how many images each is active, mean, verdict."""
        found = {name: getattr(self.top, name) for name in ("image", "value", "place", "active", "mean")}
        return found if self.meaning is None else found | {"verdict": self.meaning.verdict}

    def lines(self) -> list[str]:
        """A short table for people."""
        judged = "" if self.meaning is None else f", {int(self.meaning.judged.sum()):,} on at least {LEAST_IMAGES}"
        lines = [
            f"{int(self.top.alive.sum()):,} of {len(self.top.active):,} latents are active on any of"
            f" {self.top.images:,} images{judged}"
        ]
        if self.meaning is None:
            return lines
        if not bool(self.meaning.judged.any()):
            return [*lines, "so nothing can be said of any: read more images, or make a dictionary of fewer latents"]
        width = max(map(len, self.purity))
        lines.append(f"{'':{width}}  σ_label (chance)  majority (chance)  tell a class  and of no other factor")
        for factor, found in self.purity.items():
            sigma, majority = (
                f"{_number(getattr(found.mean, n), form)} ({_number(getattr(found.chance, n), form)})"
                for n, form in (("sigma", ".2f"), ("majority", ".0%"))
            )
            telling = _number(self.meaning.summary.telling[factor], ".1%")
            alone = _number(self.meaning.summary.monosemantic[factor], ".1%")
            lines.append(f"{factor:{width}}  {sigma:>16}  {majority:>17}  {telling:>12}  {alone:>22}")
        return lines


def find(
    activations: Activations, labels: Mapping[str, Tensor], classes: Mapping[str, Sequence[str]], seed: int = 0
) -> Findings:
    """Measure all latents. Factors of which the images have fewer than two classes are left out.

    labels: by factor, int64 ``[activations.images]``; classes: by factor, their names; seed: of the shuffles that say
    what chance is.
    """
    known = {factor: own for factor, own in labels.items() if len(own[own >= 0].unique()) > 1}
    names = {factor: tuple(classes[factor]) for factor in known}
    purity = {factor: label_purity(activations, own, seed=seed) for factor, own in known.items()}
    meaning = monosemanticity(activations, known, names, seed=seed) if known else None
    return Findings(top_images([activations]), purity, meaning, names)


def _number(value: float, form: str) -> str:
    return _NONE if math.isnan(value) else format(value, form)
