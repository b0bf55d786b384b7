"""DAAM's maps of a picture that was drawn, by the steps that are kept: the rival beside the exact maps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from torch import Tensor

from bcos_diffusion.app.drawing import Drawing
from bcos_diffusion.baselines.attention_maps import LayerAttention, record_attention
from bcos_diffusion.baselines.daam import upscaled, without_middle
from bcos_diffusion.baselines.token_maps import word_maps
from bcos_diffusion.missing.run import Run
from bcos_diffusion.pipeline import BcosDiffusionPipeline


def attention_maps(
    pipeline: BcosDiffusionPipeline, drawing: Drawing, lock: AbstractContextManager[object] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Draw the picture once more, untraced, and yield each kept step with the heat maps of the words of the prompt.

    Maps ``[words, H, W]`` are sums over all steps so far (Tang et al. 2023, Eq. 7), so the last are DAAM's own. The
    network is heard only while ``lock`` is held, since hooks would hear others, too.
    """
    lock = threading.Lock() if lock is None else lock
    job = drawing.job
    run = Run(pipeline, job, traced=False)
    sums: dict[str, LayerAttention] = {}
    for step in range(1, job.steps + 1):
        with lock, record_attention(run.unet, job.rows) as record:
            run.advance(step)
        for name, layer in record.layers.items():
            before = sums[name].probabilities if name in sums else 0
            sums[name] = replace(layer, probabilities=layer.probabilities + before)
        if step in drawing.before:
            tokens = upscaled([sums[name] for name in without_middle(sums)], tuple(job.first.shape[-2:]))
            yield step, word_maps(tokens, job.prompts(0)[:1])[:, 0]
