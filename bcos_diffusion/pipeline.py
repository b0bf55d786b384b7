"""From a prompt to an image, and from an image back to its words; loads and saves folders.

A saved pipeline is a folder with ``config.json`` (shape, vocabulary or frozen text, defaults) and
``model.safetensors``, which does not hold a frozen text. It is read from a local path or from a hub id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from bcos_diffusion.diffusion import Guidance, T, noise_schedule, sample
from bcos_diffusion.encoding import decode
from bcos_diffusion.explanation.trace import Trace, Watcher, predict_x_0, trace, trace_batch
from bcos_diffusion.hub import local_folder
from bcos_diffusion.job import Job, join
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.shipped import SHIPPED
from bcos_diffusion.start import Start, first_state
from bcos_diffusion.text import TextBatch
from bcos_kernels.files import read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from bcos_diffusion.missing.calibration import Calibration
    from bcos_diffusion.missing.ensure import EnsuredImages

FORMAT = "bcos_diffusion/1"


@dataclass(frozen=True)
class Defaults:
    """How a model is best sampled, stored beside its weights. guidance: the scale; unguided_below: as for Guidance."""

    steps: int = 25
    guidance: float = 2.0
    update: str = "homogeneous"
    unguided_below: int = 0


class BcosDiffusionPipeline:
    """A trained model with everything needed to sample from it and to explain what it drew."""

    def __init__(self, model: TextToImage, defaults: Defaults = Defaults(), name: str = "unnamed"):
        self.model = model.eval().requires_grad_(False)
        self.defaults = defaults
        self.name = name
        self.alpha_bar = noise_schedule(shift=model.unet.config.noise_shift).to(model.device)

    @classmethod
    def from_model(
        cls, model: TextToImage, weights: dict[str, Tensor], defaults: Defaults = Defaults(), name: str = "unnamed"
    ) -> BcosDiffusionPipeline:
        """A pipeline of the same shape as ``model`` with other weights, such as its EMA."""
        copy = model.twin()
        copy.load_state_dict({k: v.to(model.device) for k, v in weights.items()})
        return cls(copy, defaults, name)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = SHIPPED,
        dtype: torch.dtype = torch.float32,
        text_source: str | Path | None = None,
    ) -> BcosDiffusionPipeline:
        """Load a pipeline from a folder, a hub id or the package, by the name of a model there.

        text_source: where the frozen CLIP of a model is now, if not where its ``config.json`` says. Raises
        FileNotFoundError (nothing there) or ValueError (not a pipeline, or a damaged one).
        """
        folder = local_folder(source, ["config.json", "*.safetensors"])
        config = read_json(folder / "config.json")
        try:
            if config["format"] != FORMAT:
                raise ValueError(f"format is {config['format']!r}, this version reads {FORMAT!r}")
            model = TextToImage.from_dict(config, folder, text_source)
            defaults = Defaults(**config["defaults"])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'config.json'} does not describe a bcos_diffusion pipeline: {error}") from None
        tensors = read_tensors(folder / "model.safetensors")
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise ValueError(f"{folder / 'model.safetensors'} does not fit its config.json: {detail}") from None
        return cls(model.to(dtype), defaults, config["name"])

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``; floating weights in ``dtype`` where given."""
        state = self.model.state_dict()
        write_tensors(folder / "model.safetensors", {k: v.to(dtype or v.dtype) for k, v in state.items()})
        write_json(folder / "config.json", self._config())

    def _config(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "defaults": vars(self.defaults),
            **self.model.to_dict(),
        }

    def tokenize(self, prompt: str, negative_prompt: str | None = None) -> TextBatch:
        """The prompt and its counterpart in guidance: the negative prompt, or no words at all."""
        tokenizer = self.model.tokenizer
        positive = tokenizer.encode([prompt])
        negative = tokenizer.encode([negative_prompt]) if negative_prompt else tokenizer.encode_null(1)
        return TextBatch.concatenate([positive, negative]).to(self.model.device)

    def initial_noise(self, seed: int, size: tuple[int, int] | None = None) -> Tensor:
        """x_T ``[6, H, W]``: pairs sum to one, the same for a seed on every machine."""
        size = self.default_size if size is None else size
        return first_state(seed, size, None, self.alpha_bar).to(self.model.device, self.dtype)

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width of the images that the model was trained on, and draws unless told otherwise."""
        return (self.model.unet.config.size,) * 2

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, in which sampling runs."""
        return next(self.model.unet.parameters()).dtype

    @torch.no_grad()
    def condition(self, batch: TextBatch, guidance: float) -> Conditioning:
        """What the U-Net reads: prompt and counterpart, or the prompt alone where guidance is 1."""
        text = self.model.condition(batch)
        if guidance == 1.0:
            return Conditioning(text.values[:1], text.keys[:1], text.mask[:1])
        return text

    def job(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str | None],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        update: str | None = None,
        size: tuple[int, int] | None = None,
        start: Start | None = None,
    ) -> Job:
        """Read the prompts and draw the noise of as many pictures, the same for each as if it were alone.

        size: ``(H, W)``, the model's own by default; start: an image of that size that is noised and drawn anew.
        steps are those from the start on. Raises ValueError for empty prompts, unknown words, too long a prompt, and
        for steps and a size that the model cannot run.
        """
        steps, guided, update = self._settings(steps, guidance, update, start)
        size = self.default_size if size is None else size
        self.model.unet.check_size(*size)
        batches = [self.tokenize(p, n) for p, n in zip(prompts, negative_prompts, strict=True)]
        # One by one, since the batch a prompt is read in may change the last bit of what is read.
        text = join([self.condition(batch, guided.scale) for batch in batches])
        first = torch.stack([first_state(seed, size, start, self.alpha_bar) for seed in seeds])
        first = first.to(self.model.device, self.dtype)
        alpha_bar = self.alpha_bar[: _last_timestep(start)].to(self.dtype)
        return Job(TextBatch.concatenate(batches), text, first, alpha_bar, steps, guided, update, start)

    def explain(
        self,
        prompt: str,
        negative_prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        update: str | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Trace, TextBatch]:
        """Draw one image and trace it to its tokens and to x_T in the same pass.

        Returns the trace and the tokenized prompts that its sources point into. Raises ValueError for
        an empty prompt, unknown words, too long a prompt, or steps outside [1, T].
        """
        job = self.job([prompt], [negative_prompt], [seed], steps, guidance, update)
        traced = trace(
            self.model.unet, job.text, job.sources[0], job.first[0], job.alpha_bar, job.steps, job.guidance,
            job.update, callback,
        )  # fmt: skip
        return traced, job.batch

    def trace(self, job: Job, watch: Watcher | None = None) -> list[Trace]:
        """Draw the pictures of a job and trace each to its tokens and to where it started, in one pass over all."""
        return trace_batch(
            self.model.unet, job.text, job.sources, job.first, job.alpha_bar, job.steps, job.guidance, job.update, watch
        )

    @overload
    def generate(
        self, prompts: Sequence[str], negative_prompt: str | None = None, seed: int = 0, steps: int | None = None,
        guidance: float | None = None, update: str | None = None, size: tuple[int, int] | None = None,
        start: Start | None = None, ensure: Literal[False] = False,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def generate(
        self, prompts: Sequence[str], negative_prompt: str | None = None, seed: int = 0, steps: int | None = None,
        guidance: float | None = None, update: str | None = None, size: tuple[int, int] | None = None,
        start: Start | None = None, *, ensure: Literal[True], tries: int = 4, calibration: Calibration | None = None,
    ) -> EnsuredImages: ...  # fmt: skip

    def generate(
        self,
        prompts: Sequence[str],
        negative_prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        update: str | None = None,
        size: tuple[int, int] | None = None,
        start: Start | None = None,
        ensure: bool = False,
        tries: int = 4,
        calibration: Calibration | None = None,
    ) -> Tensor | EnsuredImages:
        """Draw one image per prompt, from seeds ``seed, seed + 1, …``. Returns rgb ``[N, 3, H, W]`` in [0, 1].

        size, start and errors: as for :meth:`job`. ensure: draw each until every object and colour named is there, or
        ``tries`` run out, and return images with what is still missing; calibration and errors: as for
        :func:`bcos_diffusion.missing.ensure.ensure_all`.
        """
        if ensure:
            from bcos_diffusion.missing.ensure import Search, ensure_all

            options = {"steps": steps, "guidance": guidance, "update": update, "size": size, "start": start}
            return ensure_all(self, prompts, negative_prompt, seed, Search(tries), calibration, **options)
        seeds = range(seed, seed + len(prompts))
        return self.draw(
            self.job(prompts, [negative_prompt] * len(prompts), seeds, steps, guidance, update, size, start)
        )

    @torch.no_grad()
    def draw(self, job: Job, callback: Callable[[int, Tensor, Tensor], None] | None = None) -> Tensor:
        """Draw the pictures of a job: rgb ``[N, 3, H, W]`` in [0, 1]; callback: as ``diffusion.sample`` has it."""
        drawn = self._sample(
            job.text, job.rows, job.first, job.steps, job.guidance, job.update, job.alpha_bar, callback
        )
        return decode(drawn).clamp(0, 1)

    def _sample(
        self, text: Conditioning, rows: int, x_T: Tensor, steps: int, guidance: Guidance, update: str,
        alpha_bar: Tensor | None = None, callback: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Run the plain sampler over prompts ``[N * rows]`` from ``x_T`` ``[N, 6, H, W]``."""
        used = self.alpha_bar.to(self.dtype) if alpha_bar is None else alpha_bar

        def denoise(x_t: Tensor, t: int) -> Tensor:
            return predict_x_0(self.model.unet, text, x_t[None], t, used[t], guidance, update)[0]

        return sample(denoise, x_T, used, steps, update, callback)

    def _settings(
        self, steps: int | None, guidance: float | None, update: str | None, start: Start | None = None
    ) -> tuple[int, Guidance, str]:
        """Steps, guidance and update, the model's own where not given; ValueError for steps that cannot be taken."""
        most = _last_timestep(start)
        steps = min(self.defaults.steps, most) if steps is None else steps
        if not 1 <= steps <= most:
            from_where = "" if start is None else f" from timestep {start.t} on"
            raise ValueError(f"steps must be between 1 and {most}{from_where}, got {steps}")
        return (
            steps,
            Guidance(self.defaults.guidance if guidance is None else guidance, self.defaults.unguided_below),
            self.defaults.update if update is None else update,
        )


def _last_timestep(start: Start | None) -> int:
    """How many timesteps there are from where sampling starts."""
    return T if start is None else start.t + 1
