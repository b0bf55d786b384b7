"""Load diffusers' networks from folders as subjects, part by part: nothing is read that features do not need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.diffusion import noise_schedule
from bcos_diffusion.features.diffusers_subject import DiTSubject, UNetSubject
from bcos_kernels.files import read_json

UNET, DIT = "UNet2DConditionModel", "DiTTransformer2DModel"


def load_pipeline(folder: Path, dtype: torch.dtype, device: str) -> UNetSubject | DiTSubject:
    """A pipeline of diffusers': its network, noise schedule, VAE and texts, of those that it has.

    Raises ValueError for a pipeline without a network of a known kind, ImportError where a library is missing.
    """
    index = read_json(folder / "model_index.json")
    if not isinstance(index, dict):
        raise ValueError(f"{folder / 'model_index.json'} does not describe a pipeline of diffusers'")
    parts = {name for name, value in index.items() if isinstance(value, list) and value and value[-1] is not None}
    home = folder / ("transformer" if "transformer" in parts else "unet")
    kind = _kind(home, read_json(home / "config.json"))
    network = _load(kind, home, dtype, device)
    alphas = _alphas(folder / "scheduler")
    vae = _load("AutoencoderKL", folder / "vae", dtype, device) if "vae" in parts else None
    name = str(index.get("_name_or_path") or folder.resolve().name)
    if kind == DIT:
        return DiTSubject(network, alphas, vae, _class_names(index.get("id2label", {})), name)
    if "text_encoder" not in parts:
        return UNetSubject(network, alphas, vae, name=name)
    encoder, tokenizer = _text(folder, dtype, device)
    return UNetSubject(network, alphas, vae, encoder, tokenizer, name)


def load_network(folder: Path, config: Mapping[str, Any], dtype: torch.dtype, device: str) -> UNetSubject | DiTSubject:
    """A bare network, with the noise of its family: Stable Diffusion's for a U-Net, linear betas for DiT.

    Raises ValueError for one of another kind, or of other than three channels.
    """
    kind, name = _kind(folder, config), folder.resolve().name
    network = _load(kind, folder, dtype, device)
    if kind == DIT:
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        return DiTSubject(network, torch.cumprod(1 - beta, 0), name=name)
    return UNetSubject(network, noise_schedule(), name=name)


def _kind(folder: Path, config: Mapping[str, Any]) -> str:
    """The class of a network. DiT was once a Transformer2DModel, and is still called so in old files."""
    kind = str(config.get("_class_name"))
    if kind == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        return DIT
    if kind not in (UNET, DIT):
        raise ValueError(f"{folder} holds a {kind}; features are read from a {UNET} or a {DIT}")
    return kind


def _load(kind: str, folder: Path, dtype: torch.dtype, device: str) -> Any:
    try:
        import diffusers
    except ImportError:
        raise ImportError("features of diffusers' models need it: pip install diffusers") from None
    try:
        model = getattr(diffusers, kind).from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no readable {kind}: {' '.join(str(error).split())[:300]}") from None
    return model.to(device)


def _alphas(folder: Path) -> Tensor:
    """ᾱ of a scheduler. Every one of diffusers' that has betas makes it of the same few settings."""
    from diffusers import DDPMScheduler

    config = read_json(folder / "scheduler_config.json")
    betas = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
    known = ("num_train_timesteps", *betas)
    given = {name: config[name] for name in known if config.get(name) is not None}
    try:
        scheduler: Any = DDPMScheduler(**given)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'scheduler_config.json'} holds no noise schedule that is known: {error}") from None
    return scheduler.alphas_cumprod


def _class_names(labels: Mapping[str, str]) -> dict[str, int]:
    """The number of each class by each of its names, which a DiT's index puts into one text with commas."""
    return {name.strip(): int(number) for number, names in labels.items() for name in names.split(",")}


def _text(folder: Path, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise ImportError(f"{folder} has a text encoder, which needs transformers: pip install transformers") from None
    try:
        encoder = CLIPTextModel.from_pretrained(
            folder / "text_encoder", torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no readable CLIP text: {' '.join(str(error).split())[:300]}") from None
    return encoder.to(device), tokenizer
