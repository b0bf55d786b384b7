"""A tiny CLIP of open_clip's own, with random weights, and folders as open_clip saves them."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

SHAPE: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}


def tiny_clip(**changes: Any) -> Any:
    """A CLIP whose weights are large enough for tokens to be told apart."""
    torch.manual_seed(7)
    model = open_clip.CLIP(**(SHAPE | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def save_clip(folder: Path, model: Any | None = None, **changes: Any) -> Path:
    """Write a folder as open_clip does, with the image tower that nobody reads."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SHAPE | changes, "preprocess_cfg": {}}))
    weights = (model or tiny_clip(**changes)).state_dict()
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "open_clip_model.safetensors")
    return folder


def penultimate(model: Any, ids: Tensor) -> Tensor:
    """What open_clip's ``encode_text`` has after its last block but one, through its final layer norm."""
    seen: list[Tensor] = []
    hook = model.transformer.resblocks[-2].register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        model.encode_text(ids)
        hook.remove()
        return model.ln_final(seen[0])
