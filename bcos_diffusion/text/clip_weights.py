"""Where CLIP's text weights come from: a file, a folder as open_clip saves one, or a hub id.

Only the text tower's tensors are read, without pickle's code: a safetensors file by name, a PyTorch file with
``weights_only``.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bcos_diffusion.text.clip import ClipText, ClipTextConfig
from bcos_kernels.files import read_json

VIT_H_14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The hub id of the text encoder of Stable Diffusion 2.1 and of the paper: open_clip's laion2b_s32b_b79k."""

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt")


def load_clip_text(source: str | Path, reads: str = "encoder") -> ClipText:
    """A frozen text tower in fp32 with the weights of ``source``.

    source: a ``.safetensors``, ``.bin`` or ``.pt`` file of open_clip's, a folder with open_clip's
    ``open_clip_config.json`` and weights, or a hub id. A file without that configuration beside it is read as ViT-H-14.
    Raises FileNotFoundError (nothing there, or no way to get it) or ValueError (not a CLIP, or a damaged file).
    """
    config_file, weights_file = _locate(source)
    try:
        config = ClipTextConfig() if config_file is None else _config(config_file)
        with torch.device("meta"):
            tower = ClipText(config, reads)
    except (TypeError, ArithmeticError, AssertionError) as error:
        raise ValueError(f"{config_file} does not describe a CLIP: {error}") from None
    tensors = _tensors(weights_file, tower)
    try:
        # Copies are made in fp32, so that nothing holds on to the file.
        tower.load_state_dict({n: t.float().clone() for n, t in tensors.items()}, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ValueError(f"{weights_file} does not fit its configuration: {detail}") from None
    return tower.eval().requires_grad_(False)


def fingerprint(tower: ClipText) -> str:
    """SHA-256 of the weights that a tower reads, as hexadecimal digits; files of the same weights agree in it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.float().cpu().contiguous().numpy())
    return digest.hexdigest()


def _config(path: Path) -> ClipTextConfig:
    values = read_json(path)
    try:
        return ClipTextConfig.from_open_clip(values.get("model_cfg", values))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a CLIP: {error}") from None


def _locate(source: str | Path) -> tuple[Path | None, Path]:
    """The configuration, where there is one, and the weights."""
    path = Path(source)
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise ValueError(f"{path} is no file of weights; these end in {', '.join(_SUFFIXES)}")
        beside = path.with_name(_CONFIG)
        return beside if beside.is_file() else None, path
    if path.is_dir():
        found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path} has no CLIP weights; they would be named {' or '.join(_WEIGHTS)}")
        return path / _CONFIG, found
    return _download(str(source))


def _download(repository: str) -> tuple[Path, Path]:
    try:
        config = Path(hf_hub_download(repository, _CONFIG))
        try:
            return config, Path(hf_hub_download(repository, _WEIGHTS[0]))
        except EntryNotFoundError:
            return config, Path(hf_hub_download(repository, _WEIGHTS[1]))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"CLIP text weights: {repository} is neither a file or folder here nor a model that can be downloaded "
            f"({type(error).__name__}); get {_WEIGHTS[0]} of {VIT_H_14} and name that file instead"
        ) from None


def _tensors(path: Path, tower: ClipText) -> dict[str, Tensor]:
    """The tensors that ``tower`` wants, of whatever type the file has them in."""
    wanted = list(tower.state_dict())
    if path.suffix != ".safetensors":
        saved = _load_pytorch(path)
        prefix = _prefix(path, saved)
        return {name: saved[prefix + name] for name in wanted if prefix + name in saved}
    try:
        with safe_open(path, framework="pt") as file:
            names = dict.fromkeys(file.keys())
            prefix = _prefix(path, names)
            return {name: file.get_tensor(prefix + name) for name in wanted if prefix + name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None


def _prefix(path: Path, names: Mapping[str, Any]) -> str:
    """What precedes the text tower's names: nothing, or what wrappers and other layouts of open_clip put there."""
    for prefix in ("", "text.", "module.", "module.text."):
        if f"{prefix}token_embedding.weight" in names:
            return prefix
    raise ValueError(f"{path} holds no CLIP text weights (token_embedding.weight is missing)")


def _load_pytorch(path: Path) -> dict[str, Tensor]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a file of plain PyTorch weights: {reason}") from None
    saved = saved.get("state_dict", saved) if isinstance(saved, dict) else {}
    return {name: value for name, value in saved.items() if isinstance(value, Tensor)}
