"""Gradient checkpointing: keep the inputs of the stages alone, and compute their activations again for backward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from bcos_diffusion.training.stages import stages
from bcos_kernels.mode import explanation_mode, is_explaining, slices, stacked


def recompute(denoiser: nn.Module) -> None:
    """Let every stage of ``denoiser`` compute again in backward what it would keep; gradients stay the same bits.

    The stages keep their class and their names; only the ``forward`` of each instance is replaced.
    """
    for stage in stages(denoiser):
        stage.forward = partial(_computed_again, stage.forward)


def _computed_again(forward: Callable[..., Any], *inputs: Any) -> Any:
    # Nothing random happens in a stage, so no generator is saved.
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=_modes)


def _modes() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the forward pass nothing; around its repetition the mode of explanation that it is called in.

    Backward runs after the block that set the mode, and on a device in another thread.
    """
    if not is_explaining():
        return nullcontext(), nullcontext()
    return nullcontext(), explanation_mode() if slices() == 1 else stacked(slices())
