"""Weights of a smaller model as the start of a larger one: more words, and larger pictures of what it has learned.

A level that was the finest of a picture of 32 pixels is, with one more level in front of it, the second of a picture of
64 and sees the same scene. So all of the small network keeps its place, and only what is new starts from noise. A
transformer has no levels: what it learned of the places of a picture is stretched over more patches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from bcos_diffusion.model import EMBEDDINGS, TextToImage
from bcos_diffusion.networks.config import NetworkConfig
from bcos_diffusion.networks.dit import DiTConfig
from bcos_diffusion.networks.places import spread
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.text import Tokenizer

_LEVEL = re.compile(r"^unet\.(down|up|downsample|upsample)\.(\d+)\.")
_PLACES = (".position", ".place")
_FINEST = ("unet.conv_in.", "unet.conv_out.", "unet.norm_out.")


def grow(model: TextToImage, held: TextToImage) -> list[str]:
    """Give a model with trained words of its own what a smaller one has learned.

    held: a model whose levels are the coarsest of ``model``'s and whose words it knows, equal in all else; a
    transformer may be of pictures of another size. Returns the
    names of the parameters that keep their random start, those of which a part does included. Raises ValueError where
    ``held`` is of another shape than that.
    """
    added = _added_levels(model, held)
    weights = {_moved(name, added): value for name, value in held.state_dict().items() if not _replaced(name, added)}
    own = model.state_dict()
    if isinstance(model.unet.config, DiTConfig):
        _stretch(weights, model.unet.config)
    words = _shared_tokens(model, held)
    for name in EMBEDDINGS:
        table, known = own[name].clone(), weights[name]
        for here, there in words.items():
            table[here] = known[there]
        weights[name] = table
    model.load_state_dict(own | weights)
    return _new(own, weights, words)


def _added_levels(model: TextToImage, held: TextToImage) -> int:
    """How many finer levels the model has than the other one."""
    if not isinstance(model.tokenizer, Tokenizer) or not isinstance(held.tokenizer, Tokenizer):
        raise ValueError("only models with a word list of their own grow from another one")
    large, small = model.unet.config, held.unet.config
    if not isinstance(large, UNetConfig) or not isinstance(small, UNetConfig):
        _check_only_size(large, small, model.text_depth == held.text_depth)
        return 0
    added = large.levels - small.levels
    if added < 0:
        raise ValueError(f"a model of {small.levels} levels cannot be the start of one of {large.levels}")
    inner = {
        "widths": large.widths[added:],
        "self_attention": large.self_attention[added:],
        "cross_attention": large.cross_attention[added:],
        "size": large.size // 2**added,
        "noise_shift": small.noise_shift,
    }
    if replace(large, **inner) != small or model.text_depth != held.text_depth:
        raise ValueError(f"the coarsest {small.levels} levels of {large} are of another shape than {small}")
    return added


def _check_only_size(large: NetworkConfig, small: NetworkConfig, texts_fit: bool) -> None:
    """Raise ValueError unless both are transformers that differ in the size of their pictures at most."""
    if isinstance(large, DiTConfig) and isinstance(small, DiTConfig):
        fits = replace(large, size=small.size, noise_shift=small.noise_shift) == small
    else:
        fits = False
    if not (fits and texts_fit):
        raise ValueError(f"{small} cannot be the start of {large}: they differ in more than the size of pictures")


def _stretch(weights: dict[str, Tensor], config: DiTConfig) -> None:
    """Give what was learned per place of a picture as many places as a transformer of ``config`` has."""
    for name in [name for name in weights if name.startswith("unet.") and name.endswith(_PLACES)]:
        weights[name] = spread(weights[name], (config.side, config.side))


def _shared_tokens(model: TextToImage, held: TextToImage) -> dict[int, int]:
    """The ids of the tokens that both know, in the first and in the second; padding is 0 in both."""
    large, small = model.tokenizer, held.tokenizer
    assert isinstance(large, Tokenizer) and isinstance(small, Tokenizer)
    unknown = small.pieces.keys() - large.pieces.keys()
    if unknown or large.length != small.length:
        raise ValueError(f"a model that grows must know the words of its start; unknown: {sorted(unknown)[:5]}")
    there = {piece: number for number, piece in enumerate(small.byte_pairs, start=1)}
    return {0: 0} | {number: there[piece] for number, piece in enumerate(large.byte_pairs, start=1) if piece in there}


def _moved(name: str, added: int) -> str:
    """What a parameter is called where there are ``added`` levels in front of its own."""
    return _LEVEL.sub(lambda found: f"unet.{found[1]}.{int(found[2]) + added}.", name)


def _replaced(name: str, added: int) -> bool:
    """Whether a parameter joins the finest level to pictures, which another level does where there are more."""
    return added > 0 and name.startswith(_FINEST)


def _new(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], words: Mapping[int, int]) -> list[str]:
    partly = [name for name in EMBEDDINGS if len(own[name]) > len(words)]
    return sorted({name for name in own if name not in weights} | set(partly))
