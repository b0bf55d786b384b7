"""From a prompt to an image, and from an image back to its words; loads and saves folders.

A saved pipeline is a folder with ``config.json`` (shape, vocabulary, defaults) and
``model.safetensors``. It is read from a local path or from a hub id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from bcos_diffusion.denoiser import Conditioning
from bcos_diffusion.diffusion import T, guide, noise_schedule, paired_noise, predicted_x_0, sample
from bcos_diffusion.encoding import decode
from bcos_diffusion.model import TextToImage
from bcos_diffusion.shipped import SHIPPED
from bcos_diffusion.text import TextBatch, Tokenizer
from bcos_diffusion.trace import Trace, signal_tokens, trace
from bcos_diffusion.unet import UNetConfig
from bcos_kernels.files import read_json, read_tensors, write_json, write_tensors

FORMAT = "bcos_diffusion/1"


@dataclass(frozen=True)
class Defaults:
    """How a model is best sampled, stored beside its weights."""

    steps: int = 25
    guidance: float = 2.0
    update: str = "homogeneous"


class BcosDiffusionPipeline:
    """A trained model with everything needed to sample from it and to explain what it drew."""

    def __init__(self, model: TextToImage, defaults: Defaults = Defaults(), name: str = "unnamed"):
        self.model = model.eval().requires_grad_(False)
        self.defaults = defaults
        self.name = name
        self.alpha_bar = noise_schedule().to(model.device)

    @classmethod
    def from_model(
        cls, model: TextToImage, weights: dict[str, Tensor], defaults: Defaults = Defaults(), name: str = "unnamed"
    ) -> BcosDiffusionPipeline:
        """A pipeline of the same shape as ``model`` with other weights, such as its EMA."""
        copy = TextToImage(model.unet.config, model.tokenizer, model.text_depth).to(model.device)
        copy.load_state_dict({k: v.to(model.device) for k, v in weights.items()})
        return cls(copy, defaults, name)

    @classmethod
    def from_pretrained(cls, source: str | Path = SHIPPED, dtype: torch.dtype = torch.float32) -> BcosDiffusionPipeline:
        """Load a pipeline from a folder or a hub id; by default the model that comes with the package.

        Raises FileNotFoundError (nothing there) or ValueError (not a pipeline, or a damaged one).
        """
        folder = _resolve(source)
        config = read_json(folder / "config.json")
        try:
            if config["format"] != FORMAT:
                raise ValueError(f"format is {config['format']!r}, this version reads {FORMAT!r}")
            model = TextToImage(
                UNetConfig.from_dict(config["unet"]), Tokenizer.from_dict(config["tokenizer"]), config["text_depth"]
            )
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
            "unet": self.model.unet.config.to_dict(),
            "text_depth": self.model.text_depth,
            "tokenizer": self.model.tokenizer.to_dict(),
            "defaults": vars(self.defaults),
        }

    def tokenize(self, prompt: str, negative_prompt: str | None = None) -> TextBatch:
        """The prompt and its counterpart in guidance: the negative prompt, or no words at all."""
        tokenizer = self.model.tokenizer
        positive = tokenizer.encode([prompt])
        negative = tokenizer.encode([negative_prompt]) if negative_prompt else tokenizer.encode_null(1)
        return TextBatch.concatenate([positive, negative]).to(self.model.device)

    def initial_noise(self, seed: int) -> Tensor:
        """x_T ``[6, H, W]``: pairs sum to one, the same for a seed on every machine."""
        size = self.model.unet.config.size
        generator = torch.Generator().manual_seed(seed)
        noise = paired_noise((1, 6, size, size), generator)[0]
        return (0.5 + 0.5 * noise).to(self.model.device, self.dtype)

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
        steps, guidance, update = self._settings(steps, guidance, update)
        batch = self.tokenize(prompt, negative_prompt)
        text = self.condition(batch, guidance)
        sources = signal_tokens(text.mask)
        x_T = self.initial_noise(seed)
        alpha_bar = self.alpha_bar.to(self.dtype)
        return trace(self.model.unet, text, sources, x_T, alpha_bar, steps, guidance, update, callback), batch

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        negative_prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        update: str | None = None,
    ) -> Tensor:
        """Draw one image per prompt, from seeds ``seed, seed + 1, …``. Returns rgb ``[N, 3, H, W]`` in [0, 1]."""
        steps, guidance, update = self._settings(steps, guidance, update)
        text = [self.condition(self.tokenize(p, negative_prompt), guidance) for p in prompts]
        rows = text[0].values.shape[0]
        joint = Conditioning(
            torch.cat([c.values for c in text]), torch.cat([c.keys for c in text]), torch.cat([c.mask for c in text])
        )
        x_T = torch.stack([self.initial_noise(seed + i) for i in range(len(prompts))])
        return decode(self._sample(joint, rows, x_T, steps, guidance, update)).clamp(0, 1)

    def _sample(self, text: Conditioning, rows: int, x_T: Tensor, steps: int, guidance: float, update: str) -> Tensor:
        """Run the plain sampler over prompts ``[N * rows]`` from ``x_T`` ``[N, 6, H, W]``."""

        alpha_bar, unet = self.alpha_bar.to(self.dtype), self.model.unet

        def denoise(x_t: Tensor, t: int) -> Tensor:
            batch = x_t.repeat_interleave(rows, 0)
            timestep = torch.full((len(batch),), t, device=x_t.device)
            predicted = unet(batch, timestep, text).unflatten(0, (-1, rows))
            predicted = guide(predicted[:, 0], predicted[:, 1], guidance) if rows == 2 else predicted[:, 0]
            return predicted_x_0(predicted, x_t, alpha_bar[t], unet.predicts, update)

        return sample(denoise, x_T, alpha_bar, steps, update)

    def _settings(self, steps: int | None, guidance: float | None, update: str | None) -> tuple[int, float, str]:
        steps = self.defaults.steps if steps is None else steps
        if not 1 <= steps <= T:
            raise ValueError(f"steps must be between 1 and {T}, got {steps}")
        return (
            steps,
            self.defaults.guidance if guidance is None else guidance,
            self.defaults.update if update is None else update,
        )


def _resolve(source: str | Path) -> Path:
    """The local folder of a pipeline, downloaded first when ``source`` is a hub id."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(source), allow_patterns=["config.json", "*.safetensors"]))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{source} is neither a folder nor a model that can be downloaded ({type(error).__name__})"
        ) from None
