"""Which scenes the page shows: some at random, and the best and worst of ours by IoU and by leakage, drawn anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from bcos_diffusion.encoding import from_pixels
from bcos_diffusion.evaluation.clock import timed
from bcos_diffusion.evaluation.localisation import GRID, iou
from bcos_diffusion.evaluation.noised import SHARES, noise_scene
from bcos_diffusion.evaluation.page.measures import METHODS, OURS, RIVAL
from bcos_diffusion.evaluation.page.sheets import Shown, example, iou_text
from bcos_diffusion.evaluation.regime_b import drawn_masks
from bcos_diffusion.evaluation.setup import Record, Setup
from bcos_diffusion.evaluation.truth import Region, regions
from bcos_diffusion.evaluation.words import group, is_content
from bcos_diffusion.page.section import Example, Sheet
from bcos_diffusion.scenes import Scenes

COUNT = 6
LEVEL = 2
"""The noise level of :data:`SHARES` at which real scenes are shown."""
DRAWN_BY = (OURS, RIVAL)
"""The methods whose maps of freely drawn pictures are shown: others take minutes a picture."""


@dataclass(frozen=True)
class Choice:
    """Scenes that one rule chose, with what the rule says of each."""

    title: str
    text: str
    scenes: tuple[tuple[int, str], ...]


def scored(records: Sequence[Record], threshold: float) -> dict[int, tuple[float, float]]:
    """IoU at a threshold and leakage of ours by scene, means over object words and levels; NaN where there is none."""
    at = int(np.abs(GRID - threshold).argmin())
    found = {}
    for record in records:
        own = record["model"]["methods"].get(OURS)
        if own is None:
            continue
        kept = [numbers for region, numbers in zip(record["model"]["regions"], own["regions"], strict=True)
                if region["kind"] == "object"]  # fmt: skip
        overlaps = [level[at] for numbers in kept for level in numbers["iou"]]
        leaks = [leak for numbers in kept for leak in numbers["leakage"] if leak is not None]
        found[record["scene"]] = _mean(overlaps), _mean(leaks)
    return found


def choose(scores: Mapping[int, tuple[float, float]], seed: int = 0, count: int = COUNT) -> list[Choice]:
    """Typical scenes by a seeded draw, the best and the worst by IoU, the worst by leakage; each scene once a sheet."""
    by_iou = sorted((n for n in scores if not math.isnan(scores[n][0])), key=lambda n: scores[n][0])
    by_leakage = sorted((n for n in scores if not math.isnan(scores[n][1])), key=lambda n: -scores[n][1])
    rng = np.random.Generator(np.random.PCG64([seed, len(by_iou)]))
    typical = sorted(rng.choice(by_iou, min(count, len(by_iou)), replace=False).tolist()) if by_iou else []
    rules = (
        ("Typical", "Drawn at random, before any was looked at.", typical),
        ("The worst by IoU", "Where exact contributions overlap least with their objects.", by_iou[:count]),
        ("The worst by leakage", "Where most of what a word gives lies on other objects.", by_leakage[:count]),
        ("The best by IoU", "Where they overlap most.", by_iou[::-1][:count]),
    )  # fmt: skip
    return [
        Choice(title, text, tuple((number, _said(*scores[number])) for number in numbers))
        for title, text, numbers in rules if numbers
    ]  # fmt: skip


def sheets(
    setup: Setup,
    result: Mapping[str, Any],
    read: Callable[[str], Sequence[Record]],
    advance: Callable[[], object] = lambda: None,
) -> list[Sheet]:
    """The sheets of both regimes. read: the test records of a regime; advance: called after each example."""
    found = []
    at = f"real scenes at t = {SHARES[LEVEL]:g} T"
    kinds = (("regime_a", at, real_scene), ("regime_b", "drawn pictures", drawn_picture))
    for regime, title, draw in kinds:
        rows = result.get(regime, {}).get("methods", {})
        threshold = rows.get(OURS, {}).get("threshold")
        if threshold is None:
            continue
        thresholds = {method: row["threshold"] for method, row in rows.items() if row.get("threshold") is not None}
        records = {record["scene"]: record for record in read(regime)}
        for choice in choose(scored(list(records.values()), threshold), setup.options.seed):
            examples = []
            for number, said in choice.scenes:
                examples.append(draw(setup, records[number], thresholds, said))
                advance()
            found.append(Sheet(f"{choice.title}: {title}", choice.text, tuple(examples)))
    return found


def count(result: Mapping[str, Any]) -> int:
    """At most how many examples :func:`sheets` will draw."""
    return 4 * COUNT * sum("methods" in result.get(regime, {}) for regime in ("regime_a", "regime_b"))


def real_scene(setup: Setup, record: Record, thresholds: Mapping[str, float], said: str) -> Example:
    """A test scene with the maps of every method that was measured on it, at one noise level."""
    number, contender = record["scene"], setup.contender
    seed = setup.options.seed + number  # as when the scene was measured
    scene = Scenes(setup.size, "test", setup.options.seed)[number]
    noised = noise_scene(contender.pipeline, scene, seed)
    x_t, t = noised.x_t[LEVEL : LEVEL + 1], noised.t[LEVEL : LEVEL + 1]
    maps = {}
    for name in _in_order(record["model"]["methods"]):
        work = partial(contender.methods[name].denoise, contender.pipeline, noised.batch, x_t, t)
        attributed, _ = timed(contender.pipeline.model.device, seed, work)
        maps[name] = attributed.maps[:, 0].cpu()
    words = noised.batch.words[0]
    found = regions(words, scene.masks)
    title, image = f"Scene {number}: {scene.caption}", from_pixels(scene.image)
    return _example(title, said, image, words, found, maps, thresholds)


def drawn_picture(setup: Setup, record: Record, thresholds: Mapping[str, float], said: str) -> Example:
    """A caption drawn freely, with the segmenter's regions."""
    options, pipeline, seed = setup.options, setup.contender.pipeline, setup.options.seed + record["scene"]
    job = pipeline.job([record["caption"]], [None], [seed], options.steps, options.guidance, options.update)
    words, image = job.batch.words[0], pipeline.draw(job)[0].float().cpu()
    assert setup.segmenter is not None
    found = regions(words, drawn_masks(setup.segmenter, image, words))
    methods = {name: setup.contender.methods[name] for name in DRAWN_BY if name in setup.contender.methods}
    maps = {name: method.draw(pipeline, job)[0].maps[:, 0].cpu() for name, method in methods.items()}
    return _example(f"Picture {record['scene']}: {record['caption']}", said, image, words, found, maps, thresholds)


def _example(
    title: str, said: str, image: Tensor, words: Sequence[str], found: Sequence[Region], maps: Mapping[str, Tensor],
    thresholds: Mapping[str, float],
) -> Example:  # fmt: skip
    """The words that could have a region, with the IoU of every map of an object word that has one."""
    masks = {region.word: region.mask for region in found}
    shown = []
    for number, word in enumerate(words):
        if not is_content(word) or group(word) not in ("object", "colour"):
            continue
        mask = masks.get(number)
        overlaps = {}
        if mask is not None and group(word) == "object":
            for method, values in maps.items():
                if method in thresholds:
                    cut = iou(values[number][None].double().numpy(), mask[None], [thresholds[method]])
                    overlaps[method] = iou_text(float(cut[0, 0]))
        shown.append(Shown(number, word, mask, overlaps))
    return example(title, said, image, shown, maps)


def _in_order(methods: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in METHODS if name in methods)
    yield from (name for name in methods if name not in METHODS)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _said(overlap: float, leak: float) -> str:
    leaks = "" if math.isnan(leak) else f", leakage {100 * leak:.0f}%"
    return f"Exact contributions, all noise levels and objects: IoU {100 * overlap:.0f}%{leaks}."
