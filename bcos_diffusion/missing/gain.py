"""What ensuring gains: complete pictures, judged by the segmenter, for the compute of each way to look for them.

Every try of every prompt is drawn once, and each way is replayed on what was seen of the tries, so that all ways are
compared on the same pictures. The replayed tries take new seeds; stronger values are measured apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bcos_diffusion.evaluation.drawn_objects import judge
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.statistics import bootstrap, ratio
from bcos_diffusion.evaluation.words import SINGULAR
from bcos_diffusion.missing.calibration import Calibration, Checkpoint
from bcos_diffusion.missing.corpus import Asked, asked
from bcos_diffusion.missing.ensure import SEEDS_APART, STRONGER, TRIES, strengthen
from bcos_diffusion.missing.fit import features_of
from bcos_diffusion.missing.judged import Judged, judge_observed
from bcos_diffusion.missing.observe import Advance, observe_all
from bcos_diffusion.missing.scoring import DRAWN
from bcos_diffusion.pipeline import BcosDiffusionPipeline

Outcome = tuple[bool, float, float]
"""Of one prompt: whether the picture is complete, the evaluations of the network, and the parts evaluated."""


@dataclass(frozen=True)
class Attempt:
    """A drawn try. early, late: the probabilities of its objects at the checkpoint and at the end."""

    complete: bool
    early: tuple[float, ...]
    late: tuple[float, ...]


def gain(
    pipeline: BcosDiffusionPipeline,
    segmenter: Segmenter,
    exact: Calibration,
    heat: Calibration,
    count: int,
    seed: int = 0,
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> dict[str, Any]:
    """Complete pictures of ``count`` test prompts by each way, with 95% intervals over prompts.

    ``plain``: the first try; ``best_of``: all tries to their end, of which the likeliest complete one is kept; ``end``,
    ``early``: ensured by contributions, judged at the end alone, and at the checkpoint before too; ``daam_end``,
    ``daam_early``: the same by attention; ``oracle``: told by the segmenter itself, the most that new seeds can give.
    A picture is complete when the segmenter finds every noun. ``evaluations``: of the network per prompt; ``parts``:
    with each part of a traced stack counted; attention needs no parts.
    """
    wanted = asked("test", count, seed, pipeline.default_size[0])
    tries = [[Asked(one.prompt, one.seed + SEEDS_APART * k) for one in wanted] for k in range(TRIES)]
    judged = [judge_observed(segmenter, observe_all(pipeline, row, cache, advance)) for row in tries]
    steps = pipeline.defaults.steps
    by = {"exact": exact, "heat": heat}
    seen = {source: [_attempts(own, c, source) for own in zip(*judged, strict=True)] for source, c in by.items()}
    # A trace has the picture, x_T and a part for each token with a value.
    parts = [2 + int(pipeline.tokenize(one.prompt).value_mask.sum()) for one in wanted]
    early = {source: round(c.early.share * steps) for source, c in by.items()}

    def replay(source: str, stop_early: bool) -> list[Outcome]:
        below = by[source].early.abort_below if stop_early else 0.0
        found = [ensured(own, steps, early[source], below) for own in seen[source]]
        return [(ok, n, n * (size if source == "exact" else 1)) for (ok, n), size in zip(found, parts, strict=True)]

    # Who knows the judge's word stops at the first complete try, if there is one: no way can do better.
    first = [next((n for n, t in enumerate(own, start=1) if t.complete), 0) for own in seen["exact"]]
    oracle = [(n > 0, float(steps * (n or TRIES)), float(steps * (n or TRIES))) for n in first]
    best = [max(own, key=lambda t: promise(t.late)).complete for own in seen["exact"]]
    whole = float(steps * TRIES)
    ways = {
        "plain": [(own[0].complete, float(steps), float(steps)) for own in seen["exact"]],
        "best_of": [(ok, whole, whole * size) for ok, size in zip(best, parts, strict=True)],
        "end": replay("exact", False),
        "early": replay("exact", True),
        "daam_end": replay("heat", False),
        "daam_early": replay("heat", True),
        "oracle": oracle,
    }
    head = {"prompts": count, "tries": TRIES, "judge": segmenter.name}
    return head | {name: _describe(outcomes, ways["plain"]) for name, outcomes in ways.items()}


def ensured(tries: Sequence[Attempt], steps: int, checkpoint: int, abort_below: float) -> tuple[bool, float]:
    """Whether the picture that ensuring ends with is complete, and the evaluations it took, as ``ensure`` decides.

    abort_below: 0 never leaves a try at the checkpoint.
    """
    left: list[Attempt] = []
    drawn: list[Attempt] = []
    for attempt in tries:
        if min(attempt.early) < abort_below:
            left.append(attempt)
            continue
        drawn.append(attempt)
        if min(attempt.late) >= DRAWN:
            break
    spent = float(steps * len(drawn) + checkpoint * len(left))
    if drawn:
        return max(drawn, key=lambda attempt: promise(attempt.late)).complete, spent
    return max(left, key=lambda attempt: promise(attempt.early)).complete, spent + steps - checkpoint


def promise(probabilities: Sequence[float]) -> tuple[bool, float]:
    """What the best try is chosen by, as ``Try.promise``."""
    return min(probabilities) >= DRAWN, float(np.log(np.maximum(probabilities, 1e-9)).sum())


def strengthening(
    pipeline: BcosDiffusionPipeline, segmenter: Segmenter, judged: Sequence[Judged], count: int
) -> dict[str, Any]:
    """Does a stronger value bring a missing word into the picture? The first ``count`` judged pictures that lack some.

    Each is drawn anew from one other seed, as it is and with the values of its missing words multiplied: the share of
    these words that are then there, and of the other objects named, with 95% intervals over pictures.
    """
    lacking = [one for one in judged if not all(one.drawn)][:count]
    names = ("again", "stronger", "others_again", "others_stronger")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for one in lacking:
        job = pipeline.job([one.seen.asked.prompt], [None], [one.seen.asked.seed + SEEDS_APART * TRIES])
        missing = [i for i, drawn in zip(one.seen.named, one.drawn, strict=True) if not drawn]
        others = [i for i in one.seen.named if i not in missing]
        for name, drawn_job in (("again", job), ("stronger", strengthen(job, dict.fromkeys(missing, STRONGER)))):
            (seen,) = judge(segmenter, pipeline.draw(drawn_job).float().cpu(), [one.seen.words])
            for key, words in ((name, missing), (f"others_{name}", others)):
                there = [SINGULAR[one.seen.words[i]] in seen.present for i in words]
                found[key].append((float(sum(there)), float(len(there))))
    return {"pictures": len(lacking)} | {name: bootstrap(pairs, ratio) for name, pairs in found.items()}


def _attempts(own: Sequence[Judged], calibration: Calibration, source: str) -> list[Attempt]:
    """The tries of one prompt as a calibration sees them."""

    def at(one: Judged, moment: int, checkpoint: Checkpoint) -> tuple[float, ...]:
        features = features_of(one, source)[moment].numpy()
        return tuple(float(p) for p in checkpoint.probability(features))

    moments = calibration.checkpoints
    last = len(moments) - 1
    return [Attempt(all(o.drawn), at(o, last - 1, moments[last - 1]), at(o, last, moments[last])) for o in own]


def _describe(outcomes: Sequence[Outcome], plain: Sequence[Outcome]) -> dict[str, Any]:
    """Shares, costs, complete pictures per unit of each cost, and how many times those of plain drawing there are."""
    return {
        "complete": bootstrap([(float(ok), 1.0) for ok, _, _ in outcomes], ratio),
        "evaluations": bootstrap([(n, 1.0) for _, n, _ in outcomes], ratio),
        "parts": bootstrap([(n, 1.0) for _, _, n in outcomes], ratio),
        "complete_per_100_evaluations": bootstrap([(100.0 * ok, n) for ok, n, _ in outcomes], ratio),
        "complete_per_1000_parts": bootstrap([(1000.0 * ok, n) for ok, _, n in outcomes], ratio),
        "times_plain": bootstrap([(float(o[0]), float(p[0])) for o, p in zip(outcomes, plain, strict=True)], ratio),
    }
