"""Where and when words came into an image: by step, layer and head, as numbers and as maps.

Numbers come from one backward pass over the run, maps from forward passes; both are exact, and sum to the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.diffusion import ddim_timesteps
from bcos_diffusion.explain import Explanation, explain_job
from bcos_diffusion.explanation.backward import attentions_to_tokens, pull_back
from bcos_diffusion.explanation.phrases import Group, groups
from bcos_diffusion.explanation.trace import Source, Watcher, push
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.mode import primal, slices


@dataclass(frozen=True)
class Breakdown:
    """An explanation, by step and layer. Words (and phrases) and tokens are those of the explanation, in order.

    timesteps: of the steps; token_relevance, word_relevance: by attention to tokens, ``[tokens, steps, heads]``, the
    mass (c_i of Eq. 8) that came through each head at each step; x_t: ``[steps, words, 6, H, W]``, what each word had
    contributed to x_t after the step; x_hat: the same of the x_0 that the step predicted; layer_maps: by attention,
    ``[words, 6, H, W]``, what each word contributed to the image through it.
    """

    words: tuple[str, ...]
    tokens: tuple[str, ...]
    timesteps: tuple[int, ...]
    token_relevance: dict[str, Tensor]
    word_relevance: dict[str, Tensor]
    x_t: Tensor
    x_hat: Tensor
    layer_maps: dict[str, Tensor]

    @property
    def layers(self) -> tuple[str, ...]:
        """The attentions to tokens, in the order they run."""
        return tuple(self.layer_maps)

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named tensors, as they are written to a file."""
        found = {"x_t": self.x_t, "x_hat": self.x_hat}
        found |= {f"layer_maps/{name}": maps for name, maps in self.layer_maps.items()}
        found |= {f"word_relevance/{name}": r for name, r in self.word_relevance.items()}
        return found | {f"token_relevance/{name}": r for name, r in self.token_relevance.items()}

    def to_dict(self) -> dict[str, Any]:
        """Relevance as JSON-ready values, heads last."""
        return {
            "timesteps": list(self.timesteps),
            "words": list(self.words),
            "tokens": list(self.tokens),
            "word_relevance": {name: r.tolist() for name, r in self.word_relevance.items()},
            "token_relevance": {name: r.tolist() for name, r in self.token_relevance.items()},
        }


def explain_in_detail(
    pipeline: BcosDiffusionPipeline,
    job: Job,
    prompt: str,
    negative_prompt: str | None,
    seed: int,
    watch: Watcher | None = None,
    phrases: Sequence[str] = (),
) -> tuple[Explanation, Breakdown]:
    """Draw and explain the one picture of a job, made of this prompt and seed, by step and layer too."""
    if len(job) != 1:
        raise ValueError(f"a breakdown is of one picture, the job has {len(job)}")
    spoken = groups(job.prompts(0), phrases)
    sources, states, predictions = job.sources[0], [], []

    def by_word(stack: Tensor) -> Tensor:
        maps = stack[1 : 1 + len(sources), 0]  # [n, 6, H, W]
        return torch.stack([maps[[i for i, s in enumerate(sources) if s in group.tokens]].sum(0) for group in spoken])

    def keep(number: int, state: Tensor, x_hat: Tensor) -> None:
        states.append(by_word(state))
        predictions.append(by_word(x_hat))
        if watch is not None:
            watch(number, state, x_hat)

    explanation = explain_job(pipeline, job, [prompt], [negative_prompt], [seed], keep, phrases)[0]
    unet = pipeline.model.unet
    pulled = pull_back(unet, job.text, job.first, job.alpha_bar, job.steps, job.guidance, job.update, by_head=True)
    tokens = [Source(row, i) for row, texts in enumerate(job.prompts(0).texts) for i in range(len(texts))]
    return explanation, Breakdown(
        tuple(part.text for part in explanation.words),
        tuple(part.text for part in explanation.tokens),
        tuple(ddim_timesteps(job.steps, len(job.alpha_bar))),
        {name: _gathered(heads, [(token,) for token in tokens]) for name, heads in pulled.heads.items()},
        {name: _gathered(heads, [group.tokens for group in spoken]) for name, heads in pulled.heads.items()},
        torch.stack(states),
        torch.stack(predictions),
        layer_maps(pipeline, job, spoken),
    )


def _gathered(heads: Tensor, parts: Sequence[tuple[Source, ...]]) -> Tensor:
    """Relevance ``[steps, 1, rows, heads, L]`` as ``[parts, steps, heads]``; nothing from rows that were not run."""
    found = heads.new_zeros(len(parts), heads.shape[0], heads.shape[3])
    for i, part in enumerate(parts):
        for source in part:
            if source.row < heads.shape[2]:
                found[i] += heads[:, 0, source.row, :, source.position]
    return found


@torch.no_grad()
def layer_maps(pipeline: BcosDiffusionPipeline, job: Job, spoken: Sequence[Group]) -> dict[str, Tensor]:
    """What each group of tokens contributed to the one image of a job, by the attention it came through.

    Every attention is a pass of its own, in which words are heard there alone: ``[groups, 6, H, W]`` each.
    """
    unet, text = pipeline.model.unet, job.text
    listeners = attentions_to_tokens(unet, text, job.first, len(job.alpha_bar) - 1)
    speaking = [i for i, group in enumerate(spoken) if any(source in job.sources[0] for source in group.tokens)]
    parts = 1 + len(speaking) + unet.time_adds
    values = text.values.new_zeros(parts, *text.values.shape)
    values[0] = text.values
    for part, i in enumerate(speaking, start=1):
        for source in spoken[i].tokens:
            if source in job.sources[0]:
                values[part, source.row, source.position] = text.values[source.row, source.position]
    state = job.first.new_zeros(parts, *job.first.shape)
    state[0] = job.first
    constant = state.new_zeros(parts, 1, 1, 1, 1)
    constant[0] = 1.0
    stack = Conditioning(values.flatten(0, 1), text.keys, text.mask)
    found = {}
    for name in listeners:
        with _heard_only_in(name, listeners):
            end = push(unet, stack, state, job.alpha_bar, job.steps, job.guidance, job.update, constant)
        found[name] = end.new_zeros(len(spoken), *end.shape[2:])
        found[name][speaking] = end[1 : 1 + len(speaking), 0]
    return found


@contextmanager
def _heard_only_in(name: str, listeners: Mapping[str, nn.Module]) -> Iterator[None]:
    """In all attentions but one, let the image hear the words and silence the parts of a stack that trace them."""

    def silence(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        image = primal(output)
        return torch.cat([image, image.new_zeros(len(image) * (slices() - 1), *image.shape[1:])])

    hooks = [module.register_forward_hook(silence) for other, module in listeners.items() if other != name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
