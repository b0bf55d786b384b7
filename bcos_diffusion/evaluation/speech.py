"""How much of a picture each part of speech takes, after Figure 5 of "What the DAAM" (Tang et al. 2023).

There the intensity of a word is the share of the picture that its map covers at 0.4 of its own maximum. Beside it
stands the mean of the map itself, which a threshold relative to the maximum hides: a faint map may cover everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bcos_diffusion.baselines.attribution import Attributed, Attribution
from bcos_diffusion.baselines.daam import TAU, hard_map
from bcos_diffusion.evaluation.statistics import bootstrap, ratio
from bcos_diffusion.evaluation.words import OBJECTS, RELATIONS
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import COLOURS
from bcos_diffusion.text import LAYOUT
from bcos_diffusion.text.function_words import ARTICLES, NUMERALS, PREPOSITIONS

PARTS = ("object", "colour", "relation", "article", "numeral", "other")
CONJUNCTIONS = frozenset({"and", "or"})


def part_of_speech(word: str) -> str:
    """Which of :data:`PARTS` a word of a scene's caption is.

    Relations are prepositions and words of place; "other" holds conjunctions, marks and "background".
    """
    if word in OBJECTS:
        return "object"
    if word in COLOURS:
        return "colour"
    if word in RELATIONS | PREPOSITIONS - CONJUNCTIONS:
        return "relation"
    if word in ARTICLES:
        return "article"
    return "numeral" if word in NUMERALS else "other"


@dataclass(frozen=True)
class Spoken:
    """A word of one picture. coverage: share of it where the map reaches tau of its maximum; mean: of the map."""

    word: str
    part: str
    coverage: float
    mean: float


def spoken(words: Sequence[str], found: Attributed, tau: float = TAU) -> list[Spoken]:
    """The words of one prompt with their intensities, means over its N pictures; start, end and padding are no words.

    Raises ValueError for words that are not those of the maps, and for a ``tau`` outside [0, 1].
    """
    if len(words) != len(found.maps):
        raise ValueError(f"there are {len(words)} words and {len(found.maps)} maps")
    coverage = hard_map(found.maps, tau).double().mean((1, 2, 3)).tolist()
    means = found.maps.double().mean((1, 2, 3)).tolist()
    rows = zip(words, coverage, means, strict=True)
    return [Spoken(word, part_of_speech(word), c, m) for word, c, m in rows if word not in LAYOUT]


def spoken_in(
    attribution: Attribution, pipeline: BcosDiffusionPipeline, job: Job, tau: float = TAU
) -> list[list[Spoken]]:
    """Draw the pictures of a job and give the intensities of the words of each."""
    found = attribution.draw(pipeline, job)
    return [spoken(job.prompts(i).words[0], one, tau) for i, one in enumerate(found)]


def intensities(pictures: Iterable[Sequence[Spoken]]) -> dict[str, dict[str, object]]:
    """Means over the words of a corpus by part of speech, with 95% bootstrap intervals over pictures.

    Returns for each of :data:`PARTS` "words", how many there are, and "coverage" and "mean" as value, low and high, NaN
    where there are none.
    """
    corpus = [list(picture) for picture in pictures]

    def over(part: str, measure: str) -> dict[str, float]:
        units = [[getattr(word, measure) for word in picture if word.part == part] for picture in corpus]
        return bootstrap([(sum(values), float(len(values))) for values in units], ratio)

    counts = {part: sum(word.part == part for picture in corpus for word in picture) for part in PARTS}
    return {p: {"words": counts[p], "coverage": over(p, "coverage"), "mean": over(p, "mean")} for p in PARTS}
