"""From single runs and scenes to the numbers of the protocol, each with its bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bcos_diffusion.evaluation.full_run import Run, Word
from bcos_diffusion.evaluation.regime_a import SHARES, OneStep, Verdict
from bcos_diffusion.evaluation.statistics import bootstrap, mean, ratio
from bcos_diffusion.evaluation.words import GROUPS

Counts = Sequence[tuple[float, float]]


def budget(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean shares of the image's mass by origin, and the worst completeness error."""
    shares = {name: bootstrap([run.budget[name] for run in runs], mean) for name in ("tokens", "x_T", "time", "other")}
    return shares | {
        "lowest_tokens": min(run.budget["tokens"] for run in runs),
        "worst_completeness": max(run.completeness for run in runs),
        "reconstruction_mse": bootstrap([run.reconstruction_mse for run in runs], mean),
    }


def mass_by_group(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean absolute relevance (share of a prompt) per word and per token, |mass| and effect, by group.

    ``object_over_function`` divides mean |mass| of object words by that of articles and prepositions, words
    of place included; it is infinite where these carry exactly 0.
    """
    result: dict[str, Any] = {
        name: {
            "words": sum(word.group == name for run in runs for word in run.words),
            "share_per_word": bootstrap([_sums(run, {name}, _share) for run in runs], ratio),
            "share_per_token": bootstrap([_sums(run, {name}, _share, _tokens) for run in runs], ratio),
            "mass_per_word": bootstrap([_sums(run, {name}, _mass) for run in runs], ratio),
            "effect_per_word": bootstrap([_sums(run, {name}, _effect) for run in runs], ratio),
        }
        for name in GROUPS
    }
    small = {"function", "relation"}
    result["object_over_function"] = _times([(_sums(r, {"object"}, _mass), _sums(r, small, _mass)) for r in runs])
    result["object_over_function_effect"] = _times(
        [(_sums(r, {"object"}, _effect), _sums(r, small, _effect)) for r in runs]
    )
    result["function_words_carry_exactly_0"] = all(
        word.measured.norm == 0 for run in runs for word in run.words if word.group in small
    )
    return result


def _share(word: Word) -> float:
    return word.share


def _mass(word: Word) -> float:
    return word.measured.mass


def _effect(word: Word) -> float:
    return word.measured.effect


def _tokens(word: Word) -> float:
    return float(word.tokens)


def _one(word: Word) -> float:
    return 1.0


def _sums(run: Run, groups: set[str], above: Any, below: Any = _one) -> tuple[float, float]:
    words = [word for word in run.words if word.group in groups]
    return math.fsum(map(above, words)), math.fsum(map(below, words))


def _times(pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> dict[str, float]:
    """How many times larger the first mean is than the second, both as (sum, count) per run."""

    def statistic(drawn: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> float:
        first, second = ratio([a for a, _ in drawn]), ratio([b for _, b in drawn])
        return first / second if second else (math.inf if first > 0 else math.nan)

    return bootstrap(pairs, statistic)


def localisation(scenes: Sequence[Sequence[Verdict]], kind: str) -> dict[str, Any]:
    """Share of regions whose own word is the largest mean-free contributor, by level and by number of rivals.

    ``chance``: what choosing among the content words at random would give.
    """

    def hits(keep: Any) -> list[tuple[float, float]]:
        kept = [[v for v in scene if v.kind == kind and keep(v)] for scene in scenes]
        return [(float(sum(v.hit for v in scene)), float(len(scene))) for scene in kept]

    verdicts = [v for scene in scenes for v in scene if v.kind == kind]
    return {
        "regions": len(verdicts) // len(SHARES),
        "share": bootstrap(hits(lambda v: True), ratio),
        "chance": mean([1 / (v.rivals + 1) for v in verdicts]),
        "share_with_rivals": bootstrap(hits(lambda v: v.rivals >= 1), ratio),
        "chance_with_rivals": mean([1 / (v.rivals + 1) for v in verdicts if v.rivals >= 1]),
        "share_with_two_rivals_or_more": bootstrap(hits(lambda v: v.rivals >= 2), ratio),
        "chance_with_two_rivals_or_more": mean([1 / (v.rivals + 1) for v in verdicts if v.rivals >= 2]),
        "by_level": {str(level): bootstrap(hits(lambda v, at=level: v.level == at), ratio) for level in SHARES},
    }


def denoising(steps: Sequence[OneStep]) -> dict[str, Any]:
    """Mean squared error of the predicted x_0 over six channels, by noise level."""
    return {str(level): bootstrap([float(step.mse[row]) for step in steps], mean) for row, level in enumerate(SHARES)}


def colours(runs: Sequence[Run]) -> dict[str, Any]:
    """How far backgrounds are from the colour named (RMS over rgb), and how often it is the nearest of all."""
    judged = [run for run in runs if run.colour_error is not None]
    return {
        "prompts": len(judged),
        "error": bootstrap([run.colour_error or 0.0 for run in judged], mean),
        "nearest_is_named": bootstrap([float(bool(run.colour_right)) for run in judged], mean),
    }


def objects(judged: Sequence[tuple[int, int, bool | None]]) -> dict[str, Any]:
    """Recall of named objects and of their relation. judged: found, named and relation per picture."""
    named = [(float(found), float(count)) for found, count, _ in judged if count]
    related = [float(holds) for *_, holds in judged if holds is not None]
    return {
        "pictures": len(named),
        "found": bootstrap(named, ratio),
        "found_when_alone": bootstrap([(found, count) for found, count in named if count == 1], ratio),
        "pictures_with_a_relation": len(related),
        "relation_holds": bootstrap(related, mean),
    }
