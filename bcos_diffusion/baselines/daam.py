"""DAAM: heat maps of words from the cross-attention of a denoiser.

"What the DAAM: Interpreting Stable Diffusion Using Cross Attention" (Tang et al. 2023), Eqs. 5-8, in the form of the
authors' package ``daam`` 0.2.0: probabilities are summed over steps, the map of every layer and head is upscaled
bicubically and its undershoot cut off at 0, and the heat map of a word is the mean of its tokens'. Here maps are
upscaled to the size of the image, not of a latent, and summed over layers and heads as in Eq. 7, where the package
takes their mean. The middle block is left out unless it is asked for: the package does so too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.baselines.attention_maps import LayerAttention, record_attention
from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.token_maps import attributed, one_step, word_maps
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch

TAU = 0.4
"""The threshold that the paper found best."""


def hard_map(maps: Tensor, tau: float = TAU) -> Tensor:
    """Where maps ``[..., H, W]`` reach ``tau`` times their own maximum (Eq. 8), bool; nowhere for one without any.

    Raises ValueError for a ``tau`` outside [0, 1].
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"tau must be between 0 and 1, got {tau}")
    most = maps.amax((-2, -1), keepdim=True)
    return (maps >= tau * most) & (most > 0)


@dataclass(frozen=True)
class HeatMaps:
    """The heat maps of one picture.

    batch: its prompt; image: rgb ``[3, H, W]`` in [0, 1]; layers: attention to tokens by layer, with N = 1; chosen:
    the layers that heat maps are made of; steps: the numbers of the sampling steps in them, which ``layers`` holds
    apart only where each was asked for.
    """

    batch: TextBatch
    image: Tensor
    layers: dict[str, LayerAttention]
    chosen: tuple[str, ...]
    steps: tuple[int, ...]

    @property
    def words(self) -> list[str]:
        """The words of the prompt, in the order of :attr:`maps`."""
        return self.batch.words[0]

    @cached_property
    def tokens(self) -> Tensor:
        """The heat map of every token ``[L, H, W]``, fp32 or more (Eq. 7)."""
        return upscaled([self.layers[name] for name in self.chosen], tuple(self.image.shape[-2:]))[0]

    @cached_property
    def maps(self) -> Tensor:
        """The heat map of every word in its place, ``[words, H, W]``."""
        return word_maps(self.tokens[None], self.batch)[:, 0]

    def word(self, word: str) -> Tensor:
        """The heat map ``[H, W]`` of a word, or of several beside each other: the mean over its tokens wherever it is.

        Raises ValueError where the prompt does not have it.
        """
        return self.tokens[self._positions(word)].mean(0)

    def hard(self, word: str, tau: float = TAU) -> Tensor:
        """Where :meth:`word` reaches ``tau`` times its maximum, ``[H, W]`` bool. Errors as there and in `hard_map`."""
        return hard_map(self.word(word), tau)

    def select(
        self,
        layers: Collection[str] | None = None,
        heads: Collection[int] | None = None,
        steps: Collection[int] | None = None,
    ) -> HeatMaps:
        """The heat maps of these layers, heads and steps alone; what is not given stays as it is.

        A head is counted in its own layer; a layer without it is left out. Raises ValueError for what was not
        recorded, and for steps of maps that are sums over steps.
        """
        chosen = self.chosen if layers is None else _known("layer", layers, tuple(self.layers))
        kept, parts = self.steps, self.layers
        if heads is not None:
            most = max(parts[name].probabilities.shape[2] for name in chosen)
            wanted = _known("head", heads, range(most))
            chosen = tuple(name for name in chosen if min(wanted) < parts[name].probabilities.shape[2])
            parts = {name: _heads(layer, wanted) for name, layer in parts.items()}
        if steps is not None:
            if any(len(layer.probabilities) != len(self.steps) for layer in parts.values()):
                raise ValueError("these maps are sums over steps: draw with each_step=True to choose among them")
            kept = _known("step", steps, self.steps)
            places = [self.steps.index(step) for step in kept]
            parts = {name: replace(a, probabilities=a.probabilities[places]) for name, a in parts.items()}
        return replace(self, layers=parts, chosen=chosen, steps=kept)

    def _positions(self, phrase: str) -> list[int]:
        wanted, said = phrase.lower().split(), [word.lower() for word in self.words]
        places = [at for at in range(len(said)) if wanted and said[at : at + len(wanted)] == wanted]
        numbers = {at + i for at in places for i in range(len(wanted))}
        found = [p for p, word in enumerate(self.batch.word_index[0].tolist()) if word in numbers]
        if not found:
            raise ValueError(f"the prompt does not have {phrase!r}; its words: {' '.join(self.words)}")
        return found


Known = TypeVar("Known", int, str)


def _known(kind: str, wanted: Collection[Known], accepted: Sequence[Known]) -> tuple[Known, ...]:
    """What is wanted, in the order of what is accepted; ValueError for anything else, and for nothing."""
    if not wanted or not set(wanted) <= set(accepted):
        raise ValueError(f"each {kind} must be one of {', '.join(map(str, accepted))}; got {list(wanted)}")
    return tuple(one for one in accepted if one in wanted)


def _heads(layer: LayerAttention, heads: Sequence[int]) -> LayerAttention:
    places = [head for head in heads if head < layer.probabilities.shape[2]]
    return replace(layer, probabilities=layer.probabilities[:, :, places])


def without_middle(names: Collection[str]) -> tuple[str, ...]:
    """The layers on the way down and up, as published: those of the middle block only where there are no others."""
    return tuple(name for name in names if not name.startswith("middle.")) or tuple(names)


def upscaled(layers: Sequence[LayerAttention], size: tuple[int, ...]) -> Tensor:
    """Sum over steps, upscale every head of every layer to ``size`` (H, W), cut off below 0, and sum: ``[N, L, H, W]``.

    The cut removes the undershoot of the bicubic kernel, as in the package. Raises ValueError for no layers.
    """
    if not layers:
        raise ValueError("no attention to tokens was recorded")
    first = layers[0].probabilities
    total = first.new_zeros(first.shape[1], first.shape[-1], *size)
    for layer in layers:
        maps = layer.probabilities.sum(0).mT.unflatten(3, layer.grid)  # [N, heads, L, h, w]
        seen = maps.flatten(3).any(-1).flatten(0, 1).any(0)  # most tokens are padding, whose maps stay 0
        large = F.interpolate(maps[:, :, seen].flatten(0, 1), size, mode="bicubic").clamp(min=0)
        total[:, seen] += large.unflatten(0, maps.shape[:2]).sum(1)
    return total


def heat_maps(
    pipeline: BcosDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    negative_prompts: Sequence[str | None] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    update: str | None = None,
    size: tuple[int, int] | None = None,
    each_step: bool = False,
) -> list[HeatMaps]:
    """Draw a picture for each prompt and seed, and give the heat maps of its words.

    each_step: keep the steps apart, so that :meth:`HeatMaps.select` can choose among them; memory then grows
    with steps. Other arguments and errors: as for :meth:`BcosDiffusionPipeline.job`.
    """
    negative = [None] * len(prompts) if negative_prompts is None else negative_prompts
    job = pipeline.job(prompts, negative, seeds, steps, guidance, update, size)
    return draw_heat_maps(pipeline, job, each_step=each_step)


def draw_heat_maps(
    pipeline: BcosDiffusionPipeline, job: Job, steps: Collection[int] | None = None, each_step: bool = False
) -> list[HeatMaps]:
    """Draw the pictures of a job and give the heat maps of the words of each.

    steps: which sampling steps, numbered from 0 in the order they run, all by default; each_step: as in
    :func:`heat_maps`. Raises ValueError for steps that the job does not take.
    """
    if steps is not None:
        _known("step", steps, list(range(job.steps)))
    with record_attention(pipeline.model.unet, job.rows, steps=steps, each_step=each_step) as record:
        images = pipeline.draw(job)
    found = []
    for i, image in enumerate(images):
        layers = {n: replace(a, probabilities=a.probabilities[:, i : i + 1]) for n, a in record.layers.items()}
        found.append(HeatMaps(job.prompts(i)[:1], image, layers, without_middle(layers), tuple(record.steps)))
    return found


class Daam:
    """DAAM as a method beside others: maps summed over layers and heads, and over the steps of a whole run."""

    name = "daam"
    label = "DAAM"

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """Attention in one unguided step; arguments and errors as for :class:`Attribution`."""
        with record_attention(pipeline.model.unet) as record:
            one_step(pipeline, batch, x_t, t)
        chosen = [record.layers[name] for name in without_middle(record.layers)]
        return attributed(upscaled(chosen, tuple(x_t.shape[-2:])), batch)

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """Attention in whole runs, of the prompts alone where there is guidance."""
        return [attributed(found.tokens[None], found.batch) for found in draw_heat_maps(pipeline, job)]
