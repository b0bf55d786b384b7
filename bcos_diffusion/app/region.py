"""Which words made a region of a picture, at any step of its run: one vector-Jacobian product through that step.

Before the step, x_t is the sum of what each word and the noise have given to it; the run kept these parts. The step
maps x_t and the words' values to the predicted x_0, linearly once factors are held constant. So a cotangent g on the
region, pulled back through this one step, gives every word exactly: ⟨g_x, its part of x_t⟩ + ⟨g_v, its value⟩.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.app.drawing import Drawing
from bcos_diffusion.diffusion import ddim_path
from bcos_diffusion.explanation.phrases import groups
from bcos_diffusion.explanation.regions import Box, region_mask
from bcos_diffusion.explanation.trace import predict_x_0, unstack
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.mode import explanation_mode

MEASURES = ("push", "mass")
"""What is counted: the push of the region's pixels from the image's mean colour to their own, or mass (Eq. 8)."""


@dataclass(frozen=True)
class Region:
    """What a region is made of. total: by measure; words: in the order of the prompt and its negative; others: the
    noise, and what time and constants of the sampler added. Words and others sum to the total, up to ``error``, the
    largest relative difference: rounding, where nothing but words and noise adds.
    """

    box: Box
    step: int
    total: Mapping[str, float]
    words: tuple[Mapping[str, float], ...]
    others: Mapping[str, Mapping[str, float]]
    error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return vars(self) | {"box": list(self.box), "words": list(self.words)}


def pull_region(pipeline: BcosDiffusionPipeline, drawing: Drawing, step: int, box: Box) -> Region:
    """Pull a box of the x_0 predicted at a step back to words and noise.

    Raises ValueError for a step that was not kept and for a box that is not in the picture.
    """
    if step not in drawing.before:
        raise ValueError(f"step must be one of {', '.join(map(str, drawing.steps))}, got {step}")
    job, unet, before = drawing.job, pipeline.model.unet, drawing.before[step]
    mask = region_mask(box, *before.shape[-2:]).to(before)
    t, here, _ = ddim_path(job.alpha_bar, job.steps)[step - 1]
    (carried,) = unstack(unet, before, job.sources, job.update)
    x_t, values = carried.image[None].detach().requires_grad_(), job.text.values.detach().requires_grad_()
    with torch.enable_grad(), explanation_mode():
        text = Conditioning(values, job.text.keys, job.text.mask)
        x_0 = predict_x_0(unet, text, x_t[None], t, here, job.guidance, job.update)[0]  # [1, 6, H, W]
    image = x_0.detach()[0]
    direction = image - image.mean(dim=(-2, -1), keepdim=True)
    spoken = [group.tokens for group in groups(job.prompts(0))]
    sums: list[Tensor] = []
    totals: list[Tensor] = []
    for cotangent in (mask * direction, mask.expand_as(image)):
        g_x, g_v = torch.autograd.grad(x_0, [x_t, values], cotangent[None], retain_graph=True)
        new = (g_v.double() * values.detach().double()).sum(-1)  # [rows, L]
        parts = torch.stack([*carried.tokens, carried.x_T, carried.time + carried.constant])
        old = (parts.double() * g_x.double()).flatten(1).sum(1)  # [n + 2]
        by_token = {s: float(old[i] + new[s.row, s.position]) for i, s in enumerate(carried.sources)}
        words = [sum(by_token.get(source, 0.0) for source in tokens) for tokens in spoken]
        sums.append(torch.tensor([*words, *old[-2:].tolist()], dtype=torch.float64))
        totals.append((cotangent.double() * image.double()).sum())
    return _region(drawing, step, box, torch.stack(sums), torch.stack(totals), adds=_adds(pipeline, drawing))


def _adds(pipeline: BcosDiffusionPipeline, drawing: Drawing) -> bool:
    """Whether time or the sampler's constants add to a picture, which words and noise then do not sum to."""
    return pipeline.model.unet.time_adds or drawing.job.update == "standard"


def _region(drawing: Drawing, step: int, box: Box, sums: Tensor, totals: Tensor, adds: bool) -> Region:
    """sums: ``[measures, words + 2]``; totals: ``[measures]``. What a step itself adds without a word is the rest."""
    rest = totals - sums.sum(1)
    if adds:
        sums[:, -1] += rest
        rest = torch.zeros_like(rest)
    scale = sums.abs().sum(1).clamp(min=torch.finfo(torch.float64).tiny)

    def both(column: Tensor) -> dict[str, float]:
        return dict(zip(MEASURES, column.tolist(), strict=True))

    return Region(
        box,
        step,
        both(totals),
        tuple(both(column) for column in sums.T[:-2]),
        {"noise": both(sums[:, -2]), "time and constants": both(sums[:, -1])},
        float((rest.abs() / scale).max()),
    )
