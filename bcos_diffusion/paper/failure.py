"""Figure 3: pictures that lack an object they were asked for. Does the word's relevance tell?

The judge of ``evaluation.presence`` says which named objects are in the picture, so the claim can be tested and not
only shown: how well relevance tells missing objects from drawn ones is measured as AUROC over all of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.paper.record import described, progress, write_result
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from torch import Tensor

    from bcos_diffusion.explain import Explanation
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

MEASURES = {
    "absolute": "share of the absolute mass (Eq. 8)",
    "signed": "signed share (Eq. 8)",
    "among_objects": "share of the absolute mass of the objects named",
    "mean_free": "share of what moves pixels off the mean colour",
    "against_its_own": "absolute share over the word's mean where it is drawn",
}
LEAST_DRAWN = 3


@dataclass(frozen=True)
class Named:
    """An object that a prompt names. position: its word; drawn: whether the judge finds it; relevance: by measure."""

    noun: str
    position: int
    drawn: bool
    relevance: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """A picture and the objects that its prompt names. heats: a mean-free map of each, all on one scale."""

    prompt: str
    seed: int
    image: Tensor
    objects: list[Named]
    heats: list[Tensor]


def crowded_prompts(count: int, seed: int, size: int = 32) -> list[str]:
    """``count`` prompts of two or three objects of scenes of side ``size``: enough that some will be missing."""
    import numpy as np

    from bcos_diffusion.scenes import COLOURS
    from bcos_diffusion.scenes import nouns as nouns_of

    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    texts = []
    for _ in range(count):
        nouns = rng.choice(nouns_of(size), int(rng.integers(2, 4)), replace=False).tolist()
        listed = " , ".join(nouns[:-1]) + f" and {nouns[-1]}"
        texts.append(f"{listed} on {sorted(COLOURS)[int(rng.integers(len(COLOURS)))]}")
    return texts


def run(sampling: Sampling, prompts: tuple[str, ...], count: int, out: Path) -> str:
    """Draw, judge and explain; write figure and numbers into ``out``; returns a few lines to print."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    with staged(out) as folder:
        from bcos_diffusion.paper.failure_figure import draw

        pipeline = sampling.load()
        texts = [text for text in prompts for _ in range(count)] or crowded_prompts(
            count, sampling.seed, pipeline.default_size[0]
        )
        pipeline.model.tokenizer.encode(texts)
        _require_objects(texts)
        judged: list[Judged] = []
        with progress(len(texts), "picture") as advance:
            for number, text in enumerate(texts):
                judged.append(judge(pipeline, text, sampling.seed + number, sampling))
                advance()
        judged = against_its_own(judged)
        found = separation(judged)
        result = described("Figure 3", sampling, pipeline) | {
            "pictures": len(judged),
            "judge_on_real_scenes": _judge_on_real_scenes(pipeline.model.unet.config.size, len(judged)),
            "separation": found,
            "drawn_by_word": typical(judged),
            "objects": [_describe(picture, named) for picture in judged for named in picture.objects],
        }
        draw(judged, result, folder / "failure.png")
        write_result(folder, "failure", result)
    return summary(result)


def _require_objects(texts: list[str]) -> None:
    from bcos_diffusion.evaluation.words import OBJECTS

    for text in texts:
        if not any(word in OBJECTS for word in text.lower().split()):
            raise ValueError(f"“{text}” names no object of scenes, and the judge knows no others")


def judge(pipeline: BcosDiffusionPipeline, prompt: str, seed: int, sampling: Sampling) -> Judged:
    """Draw and explain one prompt, and say of every object it names whether it is there."""
    from bcos_diffusion.evaluation.presence import find_objects
    from bcos_diffusion.evaluation.words import OBJECTS, SINGULAR
    from bcos_diffusion.explain import explain, mean_free

    explanation = explain(pipeline, prompt, seed=seed, **sampling.arguments(pipeline))
    words = [part for part in explanation.words if not part.negative]
    named = {i: SINGULAR[part.text] for i, part in enumerate(words) if part.text in OBJECTS}
    image = explanation.image.float().cpu()
    seen = {found.noun for found in find_objects(image, len(set(named.values())))}
    shares = relevances(explanation)
    of_objects = sum(shares["absolute"][i] for i in named) or 1.0
    shares["among_objects"] = [share / of_objects for share in shares["absolute"]]
    objects = [Named(noun, i, noun in seen, {m: shares[m][i] for m in shares}) for i, noun in named.items()]
    heats = [mean_free(words[i].map, explanation.trace.image).float().cpu() for i in named]
    largest = max((float(heat.abs().max()) for heat in heats), default=0.0) or 1.0
    return Judged(prompt, seed, image, objects, [heat / largest for heat in heats])


def relevances(explanation: Explanation) -> dict[str, list[float]]:
    """The relevance of every word of the prompt in three measures."""
    from bcos_diffusion.explain import mean_free

    words = [part for part in explanation.words if not part.negative]
    image = explanation.trace.image.double()
    pushes = [float(mean_free(part.map.double(), image).sum()) for part in words]
    total = sum(abs(push) for push in pushes) or 1.0
    return {
        "absolute": [part.relevance_absolute for part in words],
        "signed": [part.relevance_signed for part in words],
        "mean_free": [push / total for push in pushes],
    }


def against_its_own(judged: list[Judged]) -> list[Judged]:
    """Add relevance over the same word's mean in the other pictures where it is drawn; NaN where those are few."""
    drawn: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for number, picture in enumerate(judged):
        for named in picture.objects:
            if named.drawn:
                drawn[named.noun].append((number, named.relevance["absolute"]))
    for number, picture in enumerate(judged):
        for named in picture.objects:
            others = [share for other, share in drawn[named.noun] if other != number]
            known = len(others) >= LEAST_DRAWN and sum(others) > 0
            usual = sum(others) / len(others) if known else math.nan
            named.relevance["against_its_own"] = named.relevance["absolute"] / usual if known else math.nan
    return judged


def auroc(pictures: Sequence[Judged], measure: str) -> float:
    """How often a missing object has less relevance than a drawn one, ties counted half; NaN without both."""
    above, pairs = _pairs([named for picture in pictures for named in picture.objects], measure)
    return above / pairs if pairs else math.nan


def auroc_of_equal_numbers(pictures: Sequence[Judged], measure: str) -> float:
    """The same over pairs from pictures that name equally many objects.

    Among more objects each has a smaller share and is missing more often, which :func:`auroc` would take for a sign.
    """
    groups: dict[int, list[Named]] = defaultdict(list)
    for picture in pictures:
        groups[len(picture.objects)] += picture.objects
    counted = [_pairs(objects, measure) for objects in groups.values()]
    pairs = sum(count for _, count in counted)
    return sum(above for above, _ in counted) / pairs if pairs else math.nan


def _pairs(objects: Sequence[Named], measure: str) -> tuple[float, int]:
    """Of all pairs of a drawn and a missing object: in how many the drawn one has more, and how many there are."""
    from bcos_diffusion.evaluation.statistics import ranks

    known = [(n.relevance[measure], n.drawn) for n in objects if not math.isnan(n.relevance[measure])]
    present = sum(drawn for _, drawn in known)
    missing = len(known) - present
    if not present or not missing:
        return 0.0, 0
    order = ranks([relevance for relevance, _ in known])
    of_drawn = sum(rank for rank, (_, drawn) in zip(order, known, strict=True) if drawn)
    return float(of_drawn - present * (present + 1) / 2), present * missing


def separation(judged: list[Judged]) -> dict[str, Any]:
    """Counts, AUROC of every measure with an interval over pictures, and what relevance is in both groups."""
    from bcos_diffusion.evaluation.statistics import bootstrap

    objects = [named for picture in judged for named in picture.objects]
    found: dict[str, Any] = {"objects": len(objects), "missing": sum(not named.drawn for named in objects)}
    for measure in MEASURES:
        found[measure] = {
            "auroc": bootstrap(judged, partial(auroc, measure=measure)),
            "auroc_of_equal_numbers": bootstrap(judged, partial(auroc_of_equal_numbers, measure=measure)),
            "drawn": quantiles([n.relevance[measure] for n in objects if n.drawn]),
            "missing": quantiles([n.relevance[measure] for n in objects if not n.drawn]),
        }
    return found


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Count, mean and five quantiles of what is not NaN."""
    import numpy as np

    kept = np.array([value for value in values if not math.isnan(value)])
    if not len(kept):
        return {"count": 0}
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    named = {f"q{round(100 * share):02d}": float(np.quantile(kept, share)) for share in shares}
    return {"count": len(kept), "mean": float(kept.mean())} | named


def typical(judged: list[Judged]) -> dict[str, dict[str, float]]:
    """The absolute relevance of every word where its object is drawn."""
    drawn: dict[str, list[float]] = defaultdict(list)
    for picture in judged:
        for named in picture.objects:
            if named.drawn:
                drawn[named.noun].append(named.relevance["absolute"])
    return {noun: quantiles(values) for noun, values in sorted(drawn.items())}


def _describe(picture: Judged, named: Named) -> dict[str, Any]:
    return {"prompt": picture.prompt, "seed": picture.seed, "noun": named.noun, "drawn": named.drawn, **named.relevance}


def _judge_on_real_scenes(size: int, count: int) -> dict[str, Any]:
    """How many of the objects that real test scenes of several name the judge finds: what it would miss by itself."""
    from bcos_diffusion.encoding import from_pixels
    from bcos_diffusion.evaluation.presence import judge_objects
    from bcos_diffusion.evaluation.statistics import bootstrap, ratio
    from bcos_diffusion.scenes import Scenes

    scenes, index = Scenes(size=size, split="test"), 0
    pairs: list[tuple[float, float]] = []
    while len(pairs) < count:
        scene = scenes[index]
        index += 1
        if len({placed.noun for placed in scene.objects}) > 1:
            found, named, _ = judge_objects(from_pixels(scene.image), scene.words)
            if named > 1:
                pairs.append((float(found), float(named)))
    return {"scenes": count, "found": bootstrap(pairs, ratio)}


def with_interval(measured: dict[str, float]) -> str:
    """A value with its interval, or that there is none."""
    if math.isnan(measured["value"]):
        return "undefined"
    return f"{measured['value']:.2f} [{measured['low']:.2f}, {measured['high']:.2f}]"


def summary(result: dict[str, Any]) -> str:
    """What came out, in a few lines."""
    found = result["separation"]
    lines = [f"{found['missing']} of {found['objects']} named objects are missing in {result['pictures']} pictures"]
    for measure, meaning in MEASURES.items():
        value = found[measure]["auroc"]
        equal = with_interval(found[measure]["auroc_of_equal_numbers"])
        lines.append(f"  AUROC {with_interval(value)}, of equal numbers {equal}  {meaning}")
    return "\n".join(lines)
