"""CLIP's text tower, frozen: token embeddings with learned positions, or the encoder to its penultimate layer.

The blocks are open_clip's own. As in Stable Diffusion 2.1 the encoder leaves out the last block, and the final layer
norm follows; neither the last block nor the image tower is ever in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

READS = ("embeddings", "encoder")


@dataclass(frozen=True)
class ClipTextConfig:
    """Shape of a text tower in the names of open_clip's ``text_cfg``; by default that of ViT-H-14."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 1024
    heads: int = 16
    layers: int = 24
    mlp_ratio: float = 4.0
    quick_gelu: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_open_clip(cls, model: Mapping[str, Any]) -> ClipTextConfig:
        """Read open_clip's configuration of a model, a mapping with ``text_cfg``.

        Raises ValueError where there is none, or for a text tower of another make than CLIP's.
        """
        if not isinstance(text := model.get("text_cfg"), Mapping):
            raise ValueError("the configuration has no text_cfg, which says what the text tower is like")
        known = {f.name for f in fields(cls)} - {"quick_gelu"}
        strange = {name for name, value in text.items() if name not in known and value not in _HARMLESS.get(name, ())}
        if strange:
            raise ValueError(f"only CLIP's own text tower is supported, this one has {', '.join(sorted(strange))}")
        open_clips = {"width": 512, "heads": 8, "layers": 12}  # what open_clip assumes where nothing is said
        shape = open_clips | {name: value for name, value in text.items() if name in known}
        return cls(quick_gelu=bool(model.get("quick_gelu", False)), **shape)


# Options of open_clip that change nothing of what is read here, with the values at which they do not.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "pool_type": ("argmax", "first", "last", "eos", "none"),
    "proj_type": ("linear", "none"),
    "proj_bias": (True, False),
    "output_tokens": (True, False),
    "pad_id": (0,),
    "eos_id": tuple(range(1 << 16)),
    "tokenizer_mode": (None,),
    "hf_tokenizer_name": (None,),
    "ls_init_value": (None,),
    "embed_cls": (False,),
    "no_causal_mask": (False,),
}


class ClipText(nn.Module):
    """Turn ids ``[N, L]`` into what the image reads, ``[N, L, width]``; weights are named as open_clip names them.

    reads: "embeddings" gives each token's embedding plus its learned position; "encoder" all blocks but the last,
    then the final layer norm. The weights of a new tower are random. Raises ValueError for another ``reads``.
    """

    def __init__(self, config: ClipTextConfig, reads: str = "encoder"):
        super().__init__()
        if reads not in READS:
            raise ValueError(f"reads must be one of {READS}, got {reads!r}")
        self.config, self.reads = config, reads
        # Imported when first needed: it takes seconds.
        from open_clip.transformer import QuickGELU, TextTransformer

        whole = reads == "encoder"
        tower = TextTransformer(
            config.context_length,
            config.vocab_size,
            config.width,
            config.heads,
            config.layers if whole else 1,
            config.mlp_ratio,
            output_dim=None,
            act_layer=QuickGELU if config.quick_gelu else nn.GELU,
        )
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        tower.transformer.resblocks = tower.transformer.resblocks[:-1]
        self.transformer = tower.transformer if whole else None
        self.ln_final = tower.ln_final if whole else None
        # Not of the tower's: one made on the meta device would be without values.
        causal = torch.full((config.context_length, config.context_length), float("-inf"), device="cpu").triu(1)
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Read ids ``[N, L]`` of whole contexts: ``[N, L, width]``."""
        x = self.token_embedding(ids) + self.positional_embedding
        if self.transformer is None or self.ln_final is None:
            return x
        return self.ln_final(self.transformer(x, attn_mask=self.causal))
