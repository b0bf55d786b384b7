"""A frozen CLIP as the text of a model: its tokenizer, what it says of a prompt, and where its weights are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.clip import ClipText
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.text.clip_weights import fingerprint, load_clip_text


class FrozenText(nn.Module):
    """Reads prompts by a CLIP that is never trained: values and keys are the same ``[N, L, width]``.

    The tower moves with the module (``to``, ``double``), but it is not among its parameters, its submodules or its
    ``state_dict``: optimisers, averages, checkpoints and sharding pass it by, and a saved model names its source.
    source: where the tower was loaded from, as :func:`load_clip_text` takes it.
    """

    def __init__(self, tower: ClipText, tokenizer: ClipTokenizer, source: str):
        super().__init__()
        if tokenizer.length != tower.config.context_length:
            raise ValueError(
                f"the tokenizer lays out {tokenizer.length} tokens, the text tower reads {tower.config.context_length}"
            )
        self._held = [tower.eval().requires_grad_(False)]  # a list keeps it out of the module tree
        self.tokenizer, self.source = tokenizer, source
        self.sha256 = fingerprint(tower)  # before anyone rounds the weights

    @classmethod
    def load(cls, source: str | Path, reads: str = "encoder", special: str = "visible") -> FrozenText:
        """Read the weights of ``source``; arguments and errors as ``load_clip_text`` and ``ClipTokenizer``."""
        tower = load_clip_text(source, reads)
        return cls(tower, ClipTokenizer(tower.config.context_length, special), str(source))

    @property
    def tower(self) -> ClipText:
        """The frozen text tower."""
        return self._held[0]

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.tower.config.width

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenText:
        self.tower._apply(fn, recurse)
        return cast(FrozenText, super()._apply(fn, recurse))

    @torch.no_grad()
    def condition(self, batch: TextBatch) -> Conditioning:
        """Read a batch of prompts; hidden tokens contribute exactly 0.

        A prompt that is hidden whole, as training hides some for guidance, is read as the empty prompt.
        """
        ids, mask = batch.ids, batch.mask
        if self.tokenizer.special == "visible":
            hidden = ~mask.any(1, keepdim=True)
            empty = self.tokenizer.encode_null(1).to(str(ids.device))
            ids, mask = torch.where(hidden, empty.ids, ids), torch.where(hidden, empty.mask, mask)
        said = self.tower(ids)
        return Conditioning(said * mask[:, :, None].to(said.dtype), said, mask)

    def to_dict(self) -> dict[str, Any]:
        """What a saved model says of its text: what is read, from where, and the hash of the weights."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "reads": self.tower.reads,
            "tokenizer": self.tokenizer.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path, source: str | Path | None = None) -> FrozenText:
        """Rebuild a text from :meth:`to_dict`; ``source`` is another place of the same weights.

        A relative path that leads somewhere from ``folder``, the saved model's, is read from there. Raises
        FileNotFoundError or ValueError, the latter also where the weights are not those that the model was trained on.
        """
        named = str(values["source"])
        inside = folder / named
        source = source or (inside if inside.exists() else named)
        text = cls.load(source, values["reads"], values["tokenizer"]["special"])
        if text.sha256 != values["sha256"]:
            raise ValueError(f"{source} has other weights than the model was trained with (SHA-256 {text.sha256[:12]}…"
                             f" instead of {values['sha256'][:12]}…)")  # fmt: skip
        text.source = named
        return text
