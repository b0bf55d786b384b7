"""Draw until every content word is in the picture, judged by the explanation alone, and early where it can be seen.

A try is traced to a checkpoint; if a word's probability there is so low that complete pictures hardly ever have it,
the try is left, for less than half of its price. Of tries that were all left, the most promising is taken up again
where it was left, so that there always is a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.job import Job
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.run import Run
from bcos_diffusion.missing.scoring import Scored, objects
from bcos_diffusion.missing.witness import Contributions, Witness
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline

TRIES = 4
SEEDS_APART = 1_000_003
STRONGER = 1.5
_STRONGEST = 3.0


@dataclass(frozen=True)
class Try:
    """One attempt. seed: what it was drawn from; strength: by word position, what its value was multiplied by;
    steps: after how many it was left, or all of them; scores: what its words had then."""

    seed: int
    strength: Mapping[int, float]
    steps: int
    scores: tuple[Scored, ...]

    @property
    def missing(self) -> tuple[Scored, ...]:
        """The words that are more likely missing than drawn."""
        return tuple(scored for scored in self.scores if not scored.drawn)

    @property
    def promise(self) -> tuple[bool, float]:
        """Complete tries first, then those whose words are all there more likely: what to choose the best by."""
        return not self.missing, sum(math.log(max(scored.probability, 1e-9)) for scored in self.scores)


@dataclass(frozen=True)
class Ensured:
    """A picture and what it took. image: rgb ``[3, H, W]`` in [0, 1]; chosen: the try that it is; tries: all of them.

    evaluations: how often the network denoised a picture, with its counterpart in guidance; parts: the same with every
    part of a traced stack counted, since parts cost nearly as much each.
    """

    prompt: str
    image: Tensor
    chosen: Try
    tries: tuple[Try, ...]
    evaluations: int
    parts: int

    @property
    def missing(self) -> tuple[str, ...]:
        """The words that are still missing; empty where all are drawn."""
        return tuple(scored.word for scored in self.chosen.missing)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the image, as JSON-ready values."""
        return {
            "prompt": self.prompt,
            "seed": self.chosen.seed,
            "missing": list(self.missing),
            "evaluations": self.evaluations,
            "parts": self.parts,
            "chosen": self.tries.index(self.chosen),
            "tries": [_describe(attempt) for attempt in self.tries],
        }


@dataclass(frozen=True)
class EnsuredImages:
    """Several prompts' pictures. images: rgb ``[N, 3, H, W]`` in [0, 1]; pictures: each with what it took."""

    images: Tensor
    pictures: tuple[Ensured, ...]

    @property
    def missing(self) -> tuple[tuple[str, ...], ...]:
        """Of each picture the words that are still missing."""
        return tuple(picture.missing for picture in self.pictures)

    @property
    def evaluations(self) -> int:
        """How often the network denoised a picture, in all."""
        return sum(picture.evaluations for picture in self.pictures)


@dataclass(frozen=True)
class Search:
    """How to look for a complete picture. tries: at most; early: whether a try may be left at the checkpoint before
    the last step; seeds: how many tries only take another seed, before words that were missing get a stronger value.
    """

    tries: int = TRIES
    early: bool = True
    seeds: int = 2

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries must be at least 1, got {self.tries}")


@dataclass
class Candidate:
    """A try with its run, and its image where it was drawn to the end."""

    run: Run
    attempt: Try
    image: Tensor | None = None


def ensure(
    pipeline: BcosDiffusionPipeline,
    prompt: str,
    witness: Witness,
    seed: int = 0,
    search: Search = Search(),
    negative_prompt: str | None = None,
    **options: Any,
) -> Ensured:
    """Draw a prompt until every content word is there or the tries run out, and return the best try.

    The first try is the picture of ``seed`` itself, the next ones have new seeds; after ``search.seeds`` of them the
    words that were missing last also get a stronger value. options: as for :meth:`BcosDiffusionPipeline.job`, whose
    errors it raises; ValueError also for a prompt without a word that could be missing.
    """
    for found in attempts(pipeline, prompt, witness, seed, search, negative_prompt, **options):
        candidates = found
    return _best(prompt, candidates)


def attempts(
    pipeline: BcosDiffusionPipeline,
    prompt: str,
    witness: Witness,
    seed: int = 0,
    search: Search = Search(),
    negative_prompt: str | None = None,
    **options: Any,
) -> Iterator[list[Candidate]]:
    """The tries of :func:`ensure`, all so far after each one, so that a caller may show them or stop between two."""
    candidates: list[Candidate] = []
    strength: dict[int, float] = {}
    for number in range(search.tries):
        own = seed + SEEDS_APART * number
        job = strengthen(pipeline.job([prompt], [negative_prompt], [own], **options), strength)
        require_object(prompt, job.prompts(0).words[0])
        candidates.append(_attempt(Run(pipeline, job, witness.traced), own, strength, witness, search.early))
        yield candidates
        if candidates[-1].image is not None and not candidates[-1].attempt.missing:
            break
        strength = _stronger(candidates[-1].attempt) if number + 1 >= search.seeds else {}


def ensure_all(
    pipeline: BcosDiffusionPipeline,
    prompts: Sequence[str],
    negative_prompt: str | None,
    seed: int,
    search: Search,
    calibration: Calibration | None = None,
    **options: Any,
) -> EnsuredImages:
    """:func:`ensure` each prompt by its contributions, from seeds ``seed, seed + 1, …``, once all have been read.

    calibration: the one in the package where not given. Raises ValueError where it belongs to another model.
    """
    calibration = Calibration.of(pipeline) if calibration is None else calibration
    for prompt in prompts:
        require_object(prompt, pipeline.tokenize(prompt, negative_prompt).words[0])
    witness = Contributions(calibration)
    found = tuple(
        ensure(pipeline, prompt, witness, seed + number, search, negative_prompt, **options)
        for number, prompt in enumerate(prompts)
    )
    return EnsuredImages(torch.stack([one.image for one in found]), found)


def require_object(prompt: str, words: Sequence[str]) -> None:
    """Raise ValueError for a prompt without a word that could be missing."""
    if not objects(words):
        raise ValueError(f"{prompt!r} names no object that could be missing; name one, or draw without ensuring")


def strengthen(job: Job, strength: Mapping[int, float]) -> Job:
    """The same job with the values of some words of its first prompt multiplied. strength: by word position.

    What a word says is scaled, and where it is heard is not, so the explanation stays exact.
    """
    if not strength:
        return job
    factor = torch.ones_like(job.text.values[:, :, :1])
    for position, times in strength.items():
        factor[0, job.batch.word_index[0] == position] = times
    return replace(job, text=Conditioning(job.text.values * factor, job.text.keys, job.text.mask))


def _attempt(run: Run, seed: int, strength: Mapping[int, float], witness: Witness, early: bool) -> Candidate:
    """Draw to the end, or to the checkpoint where the try is hopeless."""
    checkpoint = witness.calibration.early
    until = round(checkpoint.share * run.job.steps)
    with witness.watching(run):
        if early and 0 < until < run.job.steps:
            run.advance(until)
            scores = witness.scores(run)
            if min(s.probability for s in scores if s.group == "object") < checkpoint.abort_below:
                return Candidate(run, Try(seed, dict(strength), until, scores))
        run.advance(run.job.steps)
        return Candidate(run, Try(seed, dict(strength), run.number, witness.scores(run)), run.images[0])


def _stronger(last: Try) -> dict[int, float]:
    """What to multiply the values of words by in the next try: of those that were missing more than before."""
    weak = {s.position: last.strength.get(s.position, 1.0) * STRONGER for s in last.missing if s.group == "object"}
    return {position: min(times, _STRONGEST) for position, times in (dict(last.strength) | weak).items()}


def _best(prompt: str, candidates: list[Candidate]) -> Ensured:
    """The most complete picture; where every try was left early, the most promising one, drawn to its end."""
    best = most_promising(candidates)
    image = best.run.finish()[0] if best.image is None else best.image
    return Ensured(
        prompt,
        image,
        best.attempt,
        tuple(c.attempt for c in candidates),
        sum(c.run.evaluations for c in candidates),
        sum(c.run.parts for c in candidates),
    )


def most_promising(candidates: Sequence[Candidate]) -> Candidate:
    """The most complete of the tries that were drawn to the end, or of all where there is none."""
    drawn = [c for c in candidates if c.image is not None]
    return max(drawn or candidates, key=lambda c: c.attempt.promise)


def _describe(attempt: Try) -> dict[str, Any]:
    return {
        "seed": attempt.seed,
        "steps": attempt.steps,
        "strength": {str(position): times for position, times in attempt.strength.items()},
        "words": [scored.to_dict() for scored in attempt.scores],
    }
