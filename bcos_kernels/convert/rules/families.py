"""What is particular about classes of torchvision, timm and diffusers: by name, so that none of them is imported."""

from __future__ import annotations

from torch import nn

STEERING = frozenset(
    "q k qk qkv q_proj k_proj qkv_proj query key to_q to_k to_qk to_qkv add_q_proj add_k_proj in_proj".split()
)
"""Linear layers that make queries and keys, alone or with values: B-cosification leaves them linear."""

ADDITIVE = frozenset(
    "pos_embed pos_embedding position_embedding positional_embedding cls_token class_token class_embedding reg_token"
    " dist_token register_tokens".split()
)
"""Parameters that a model adds to its stream or puts beside it."""

# In these an activation weighs something else. With the names of the child modules that do.
GATED_UNITS = {
    "diffusers.models.activations.GEGLU": (),
    "diffusers.models.activations.SwiGLU": ("activation",),
    "timm.layers.mlp.GluMlp": ("act",),
    "timm.layers.mlp.SwiGLU": ("act",),
}

# Computed from the timestep alone: left as they are, because what they give is a constant.
_CONDITIONING = ("diffusers.models.embeddings.TimestepEmbedding", "diffusers.models.embeddings.Timesteps")
_RESIDUAL_WITH_TIME = "diffusers.models.resnet.ResnetBlock2D"

_UNSUPPORTED = {
    "diffusers.models.normalization.AdaLayerNorm": "it scales and shifts by one embedding of time",
    "diffusers.models.normalization.AdaLayerNormZero": "it scales and shifts by one embedding of time",
    "diffusers.models.normalization.AdaLayerNormSingle": "it scales and shifts by one embedding of time",
    "diffusers.models.normalization.AdaGroupNorm": "it scales and shifts by one embedding of time",
    "torchvision.ops.misc.FrozenBatchNorm2d": "its bias is a buffer, which no budget names",
}
_KERNELS = ("XFormers", "XLA", "NPU", "Flash")  # attention processors that call no function of torch


def lineage(module: nn.Module) -> list[str]:
    """The full names of a module's classes."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]


def gated_children(module: nn.Module) -> tuple[str, ...] | None:
    """Of a gated linear unit the children that are factors; None for any other module."""
    return next((GATED_UNITS[name] for name in lineage(module) if name in GATED_UNITS), None)


def is_conditioning(module: nn.Module) -> bool:
    """Whether a module, and all in it, computes a constant of the explanation."""
    return any(name in _CONDITIONING for name in lineage(module))


def constant_children(module: nn.Module) -> dict[str, int]:
    """Children whose output is a constant, and how many of its channels multiply rather than add."""
    if _RESIDUAL_WITH_TIME not in lineage(module) or getattr(module, "time_emb_proj", None) is None:
        return {}
    projection = module.get_submodule("time_emb_proj")
    assert isinstance(projection, nn.Linear)
    scales = getattr(module, "time_embedding_norm", "default") == "scale_shift"
    return {"time_emb_proj": projection.out_features // 2 if scales else 0}


def unsupported(module: nn.Module) -> str | None:
    """Why a module of a known class cannot be explained, or None."""
    for name in lineage(module):
        if name in _UNSUPPORTED:
            return _UNSUPPORTED[name]
    processor = type(getattr(module, "processor", None)).__name__
    if any(kernel in processor for kernel in _KERNELS):
        return f"its {processor} computes attention outside torch; call set_attn_processor(AttnProcessor2_0()) first"
    return None
