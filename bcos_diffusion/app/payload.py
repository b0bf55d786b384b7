"""What the page is sent: a picture with its maps at every step, packed so that the browser can answer by itself.

Maps are numbers of 8 or 16 bits in base64, each set with the value of its largest number. The browser multiplies back,
which is exact to 1/32767 of the largest; what must be exact to rounding is asked of the server (region.py, export.py).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.app.drawing import Drawing, Frame
from bcos_diffusion.encoding import to_bytes
from bcos_diffusion.explain import Explanation
from bcos_diffusion.explanation.figure import word_heat
from bcos_diffusion.explanation.relevance import mean_free
from bcos_diffusion.missing.scoring import Scored


def others(explanation: Explanation) -> list[tuple[str, Tensor]]:
    """What is no word: the noise, and time and constants where the model has any. Maps ``[6, H, W]``."""
    rest = explanation.trace.time + explanation.trace.constant
    noise = [("noise", explanation.trace.x_T)]
    return [*noise, ("time and constants", rest)] if bool(rest.any()) else noise


def preview(frame: Frame) -> dict[str, Any]:
    """A step while the picture is drawn: the picture, and the words' shares so far."""
    found = frame.explanation
    return {
        "kind": "preview",
        "step": frame.step,
        "steps": found.steps,
        "prompt": found.prompt,
        "size": [found.image.shape[2], found.image.shape[1]],
        "image": _bytes(to_bytes(found.image).permute(1, 2, 0)),
        "words": _words(found, frame.spoken),
        **_shares(found),
    }


def frame_maps(frame: Frame) -> dict[str, Any]:
    """A step in full: picture, heat of each word that speaks, and what each part gave to each pixel by measure."""
    found = frame.explanation
    heat = word_heat(found)
    maps = [found.words[i].map for i in frame.spoken] + [rest for _, rest in others(found)]
    stack = torch.stack(maps).double()  # [n + others, 6, H, W]
    return {
        "step": frame.step,
        "image": _bytes(to_bytes(found.image).permute(1, 2, 0)),
        "heat": _bytes(to_bytes(torch.stack([heat[i].abs() for i in frame.spoken]))) if frame.spoken else "",
        "push": _packed(mean_free(stack, found.trace.image.double())),
        "mass": _packed(stack.sum(1)),
        **_shares(found),
    }


def whole(drawing: Drawing, frames: Sequence[dict[str, Any]], scored: Sequence[Scored]) -> dict[str, Any]:
    """A finished picture with all its frames and how likely each word was drawn."""
    found = drawing.explanation
    drawn = {score.position: score for score in scored}
    words = _words(found, drawing.spoken)
    for position, score in drawn.items():
        words[position] |= {"probability": score.probability, "drawn": score.drawn, "group": score.group}
    return {
        "kind": "whole",
        "prompt": found.prompt,
        "negative_prompt": found.negative_prompt,
        "seed": found.seed,
        "steps": found.steps,
        "guidance": found.guidance.scale,
        "model": found.model,
        "size": [found.image.shape[2], found.image.shape[1]],
        "words": words,
        "others": [name for name, _ in others(found)],
        "completeness": found.completeness,
        "strengthened": {str(position): times for position, times in drawing.strength.items()},
        "frames": list(frames),
    }


def attention_frame(step: int, maps: Tensor, spoken: Sequence[int]) -> dict[str, Any]:
    """DAAM's maps ``[words, H, W]`` of one step, for the words of the prompt that speak, on one scale."""
    chosen = maps[[i for i in spoken if i < len(maps)]]
    most = float(chosen.max()) if chosen.numel() else 0.0
    return {"step": step, "heat": _bytes(to_bytes(chosen / most if most else chosen))}


def _words(found: Explanation, spoken: Sequence[int]) -> list[dict[str, Any]]:
    return [{"text": part.text, "negative": part.negative, "speaks": i in spoken} for i, part in enumerate(found.words)]


def _shares(found: Explanation) -> dict[str, Any]:
    budget = found.budget
    return {
        "relevance": [part.relevance_signed for part in found.words],
        "budget": [["words", budget["tokens"]], ["noise", budget["x_T"]], ["bias", budget["time"] + budget["other"]]],
    }


def _packed(maps: Tensor) -> dict[str, Any]:
    """Maps as 16-bit integers with what they are to be multiplied by."""
    scale = float(maps.abs().max()) / 32767 or 1.0
    return {"scale": scale, "values": _bytes((maps / scale).round().to(torch.int16))}


def _bytes(values: Tensor) -> str:
    return base64.b64encode(values.contiguous().cpu().numpy().tobytes()).decode()
