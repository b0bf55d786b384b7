"""Is a latent about one thing? By factors whose true labels are known, such as object, colour, position and count.

A latent *tells* a class of a factor where at least half of the way from chance to certainty is gone, and it is no
accident:

- its selectivity (p - b) / (1 - b) is at least 0.5. p is the share of the latent's activation that falls on images of
  the class, b the share of images that are of the class. It is 0 by chance, 1 for a latent that is active on this
  class alone. A latent of some dogs only has as high a one as a latent of all dogs, which AUROC would not say:
  dictionaries split what is frequent;
- so many active images of the class would be drawn by chance less than once in a thousand times, for all classes of the
  factor together: C exp(-m KL(a/m || b)) <= 0.001, for a of m active images (Hoeffding 1963, which holds for draws
  without replacement too).

A latent that tells a class of one factor is monosemantic in that factor; of several factors, it is mixed ("blue cats").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations
from bcos_diffusion.features.latents.purity import check_labels
from bcos_diffusion.features.latents.selectivity import Selectivity, selectivity

LEAST_IMAGES = 10
LEAST_SELECTIVITY = 0.5
CHANCE = 1e-3
SHUFFLES = 5
MIXED, NOTHING = "mixed", "nothing"


@dataclass(frozen=True)
class FactorReading:
    """What n latents tell of one factor. best: ``[n]`` int64, the class of the largest selectivity.

    selectivity, auroc, average_precision: ``[n]`` float64, for that class; information: ``[n]``, share of the label's
    entropy (:class:`Selectivity`); tells: ``[n]`` bool, whether the latent tells that class.
    """

    best: Tensor
    selectivity: Tensor
    auroc: Tensor
    average_precision: Tensor
    information: Tensor
    tells: Tensor


@dataclass(frozen=True)
class Summary:
    """Of the latents that were judged. Shares are of these; they are NaN where there are none.

    monosemantic: by factor, and "mixed" and "nothing": they sum to 1; telling: by factor, the latents that tell a
    class of it, whatever else they tell; selectivity, auroc, average_precision, information: means by factor.
    """

    monosemantic: dict[str, float]
    telling: dict[str, float]
    selectivity: dict[str, float]
    auroc: dict[str, float]
    average_precision: dict[str, float]
    information: dict[str, float]


@dataclass(frozen=True)
class Monosemanticity:
    """Every latent by every factor, and the summary beside what shuffled labels give.

    readings: by factor; judged: ``[n]`` bool, latents active on enough images; verdict: ``[n]`` int64, the number of
    the factor in ``readings`` that a latent is monosemantic in, -1 for nothing, -2 for mixed, -3 for not judged;
    chance: means over shuffles of the labels of each factor over the images that have one.
    """

    readings: dict[str, FactorReading]
    judged: Tensor
    verdict: Tensor
    summary: Summary
    chance: Summary

    def to_dict(self) -> dict[str, Any]:
        """The summary and chance as JSON-ready values, and of how many latents they are."""
        return {"summary": asdict(self.summary), "chance": asdict(self.chance), "judged": int(self.judged.sum())}


def monosemanticity(
    activations: Activations,
    labels: Mapping[str, Tensor],
    classes: Mapping[str, Sequence[str]],
    least_images: int = LEAST_IMAGES,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Monosemanticity:
    """Judge every latent that is active on at least ``least_images`` images.

    labels: by factor, int64 ``[activations.images]``, -1 where the factor does not apply; classes: by factor, the names
    of its classes. Raises ValueError for labels that do not fit, and for a factor without two classes among the images.
    """
    for factor, known in labels.items():
        _check_factor(factor, known, activations.images, classes)
    if not labels or shuffles < 1:
        raise ValueError(f"there must be a factor and a shuffle, got {len(labels)} and {shuffles}")
    judged = activations.active >= least_images
    readings = {f: _read(activations, known, len(classes[f])) for f, known in labels.items()}
    verdict = _verdict(readings)
    verdict[~judged] = -3
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for _ in range(shuffles):
        shuffled = {f: _read(activations, _shuffled(known, generator), len(classes[f])) for f, known in labels.items()}
        rounds.append(_summary(shuffled, judged))
    return Monosemanticity(readings, judged, verdict, _summary(readings, judged), _mean(rounds))


def _check_factor(factor: str, known: Tensor, images: int, classes: Mapping[str, Sequence[str]]) -> None:
    try:
        check_labels(known, images)
    except ValueError as error:
        raise ValueError(f"factor {factor!r}: {error}") from None
    if factor not in classes:
        raise ValueError(f"factor {factor!r} has labels but no classes; classes are of {', '.join(classes) or 'none'}")
    if images and int(known.max()) >= len(classes[factor]):
        raise ValueError(f"factor {factor!r} has {len(classes[factor])} classes, but label {int(known.max())}")
    if len(known[known >= 0].unique()) < 2:
        raise ValueError(f"factor {factor!r} needs images of two classes at least")


def _shuffled(known: Tensor, generator: torch.Generator) -> Tensor:
    shuffled, has = known.clone(), known >= 0
    shuffled[has] = known[has][torch.randperm(int(has.sum()), generator=generator)]
    return shuffled


def _read(activations: Activations, known: Tensor, classes: int) -> FactorReading:
    measured = selectivity(activations, known, classes)
    possible = (measured.base > 0) & (measured.base < 1)
    gain = (measured.share - measured.base) / (1 - measured.base)
    gain = torch.where(possible, gain, -torch.inf)
    best = gain.argmax(1)
    of_best = best[:, None]
    chosen = gain.gather(1, of_best)[:, 0]
    unlikely = classes * torch.exp(-_surprise(measured)).gather(1, of_best)[:, 0] <= CHANCE
    return FactorReading(
        best,
        chosen,
        measured.auroc.gather(1, of_best)[:, 0],
        measured.average_precision.gather(1, of_best)[:, 0],
        measured.information,
        (chosen >= LEAST_SELECTIVITY) & unlikely,
    )


def _surprise(measured: Selectivity) -> Tensor:
    """m KL(a/m || b) in nats, ``[n, C]``; 0 where a class is not more frequent than by chance."""
    active = measured.active.sum(1, keepdim=True)
    p, b = measured.active / active.clamp(min=1), measured.base
    divergence = torch.xlogy(p, p / b) + torch.xlogy(1 - p, (1 - p) / (1 - b))
    return torch.where((p > b) & (b > 0), active * divergence, 0.0)


def _verdict(readings: Mapping[str, FactorReading]) -> Tensor:
    tells = torch.stack([reading.tells for reading in readings.values()])  # [factors, n]
    told = tells.sum(0)
    return torch.where(told == 1, tells.long().argmax(0), torch.where(told == 0, -1, -2))


def _summary(readings: Mapping[str, FactorReading], judged: Tensor) -> Summary:
    verdict = _verdict(readings)[judged]
    numbers = dict(zip(readings, range(len(readings)), strict=True)) | {NOTHING: -1, MIXED: -2}

    def means(name: str) -> dict[str, float]:
        return {f: float(getattr(reading, name)[judged].double().mean()) for f, reading in readings.items()}

    return Summary(
        {name: float((verdict == number).double().mean()) for name, number in numbers.items()},
        means("tells"), means("selectivity"), means("auroc"), means("average_precision"), means("information"),
    )  # fmt: skip


def _mean(rounds: Sequence[Summary]) -> Summary:
    means = {
        name: {key: sum(vars(r)[name][key] for r in rounds) / len(rounds) for key in of_first}
        for name, of_first in vars(rounds[0]).items()
    }
    return Summary(**means)
