"""The numbers of the protocol as text."""

from __future__ import annotations

import math
from typing import Any

from bcos_diffusion.evaluation.faithfulness import KEYS, MEASURES
from bcos_diffusion.evaluation.words import GROUPS

_WIDTH = 44


def _interval(number: dict[str, float], digits: int = 3) -> str:
    if math.isnan(number["value"]):
        return "undefined"
    if math.isinf(number["value"]):
        return "infinite"
    return f"{number['value']:.{digits}f}  [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_WIDTH}} {text}"


def describe(result: dict[str, Any]) -> str:
    """Lay the values of ``evaluate`` out as lines; brackets hold 95% bootstrap intervals."""
    head = (
        f"{result['count']} test prompts and scenes, {result['steps']} steps, guidance {result['guidance']}, "
        f"{result['update']} update; [95% bootstrap interval]"
    )
    sections = (_budget, _mass, _localisation, _faithfulness, _quality)
    return "\n".join([head, *(line for section in sections for line in section(result))])


def _budget(result: dict[str, Any]) -> list[str]:
    budget = result["budget"]
    return [
        "Budget of whole runs (shares of the image's mass)",
        *(_line(name, _interval(budget[name], 4)) for name in ("tokens", "x_T", "time", "other")),
        _line("lowest share of tokens", f"{budget['lowest_tokens']:.4f}"),
        _line("worst completeness error", f"{budget['worst_completeness']:.1e}"),
        _line("reconstruction MSE", _interval(budget["reconstruction_mse"], 5)),
    ]


def _mass(result: dict[str, Any]) -> list[str]:
    mass = result["mass"]
    lines = ["Absolute relevance per word | per token | effect of dropping the word"]
    for name in GROUPS:
        values = [_interval(mass[name][key]) for key in ("share_per_word", "share_per_token", "effect_per_word")]
        lines.append(_line(f"{name} words ({mass[name]['words']})", " | ".join(values)))
    zero = " (these carry exactly 0, by construction)" if mass["function_words_carry_exactly_0"] else ""
    lines.append(_line("|mass|, object / article or preposition", _interval(mass["object_over_function"], 2) + zero))
    lines.append(_line("effect, object / article or preposition", _interval(mass["object_over_function_effect"], 2)))
    return lines


def _localisation(result: dict[str, Any]) -> list[str]:
    lines = ["Own word is the largest mean-free contributor (real scenes, one step)"]
    for kind, name in (("object", "objects, in their mask"), ("colour", "colour words, in the background")):
        found = result["localisation"][kind]
        lines.append(
            _line(f"{name} ({found['regions']})", f"{_interval(found['share'])}  chance {found['chance']:.3f}")
        )
        for key, label in (("with_rivals", "1+ rival words"), ("with_two_rivals_or_more", "2+ rival words")):
            chance = found[f"chance_{key}"]
            lines.append(_line(f"  {label}", f"{_interval(found[f'share_{key}'])}  chance {chance:.3f}"))
        levels = ", ".join(f"t={level}T {value['value']:.3f}" for level, value in found["by_level"].items())
        lines.append(_line("  by noise level", levels))
    return lines


def _faithfulness(result: dict[str, Any]) -> list[str]:
    lines = ["Spearman, relevance with the effect of dropping the word"]
    for regime, label in (("whole_run", "whole runs"), ("one_step", "one step")):
        found = result["faithfulness"][regime]
        lines.append(f"  {label} ({found['units_with_3_content_words']} of {found['units']} have 3+ content words)")
        for name in MEASURES:
            values = found[name]
            for key in KEYS:
                lines.append(_line(f"  {name}, {key.replace('_', ' ')}", _interval(values[key])))
    return lines


def _quality(result: dict[str, Any]) -> list[str]:
    quality = result["quality"]
    mse = ", ".join(f"t={level}T {value['value']:.4f}" for level, value in quality["denoising_mse"].items())
    lines = ["Quality", _line("denoising MSE", mse)]
    lines.append(_line("background colour error (RMS)", _interval(quality["background"]["error"])))
    lines.append(_line("background nearest to the colour named", _interval(quality["background"]["nearest_is_named"])))
    for key, label in (("objects_drawn", "drawn"), ("objects_in_real_scenes", "real scenes, the same judge")):
        found = quality[key]
        lines.append(_line(f"named objects found, {label}", _interval(found["found"])))
        lines.append(_line(f"the same, one object named, {label}", _interval(found["found_when_alone"])))
        lines.append(_line(f"relation holds, {label}", _interval(found["relation_holds"])))
    return lines
