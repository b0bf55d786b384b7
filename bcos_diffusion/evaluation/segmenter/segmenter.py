"""The trained segmenter: pictures in, classes and masks of words out; loads and saves folders.

A folder holds ``model.safetensors`` (bf16) and ``card.json``: what the classes are, how it was trained, how well it
does on held-out scenes, and the digest of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bcos_diffusion.evaluation.segmenter.classes import classes, numbers
from bcos_diffusion.evaluation.segmenter.network import SegmenterNetwork
from bcos_diffusion.evaluation.words import SINGULAR
from bcos_diffusion.scenes import COLOURS
from bcos_diffusion.scenes.lexicon import FINE_FROM
from bcos_kernels.files import read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

FORMAT = "bcos_diffusion.segmenter/1"

_BATCH = 64
_COLOUR_NAMES = tuple(COLOURS)
_COLOURS = torch.tensor(list(COLOURS.values())) / 255


def shipped(size: int) -> Path:
    """The folder of the segmenter that comes with the package for pictures of side ``size``."""
    return Path(__file__).parent / "weights" / ("scenes-64" if size >= FINE_FROM else "scenes-32")


class Segmenter:
    """Says of each pixel which noun of scenes it shows, or that it is background. card: as in ``card.json``."""

    def __init__(self, network: SegmenterNetwork, card: Mapping[str, Any]):
        self.network = network.eval().requires_grad_(False)
        self.card = dict(card)

    @classmethod
    def load(cls, folder: Path = shipped(32), device: torch.device | str = "cpu") -> Segmenter:
        """The segmenter in a folder; by default the one that comes with the package for 32 pixels.

        Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
        """
        card, path = read_json(folder / "card.json"), folder / "model.safetensors"
        if not isinstance(card, dict) or card.get("format") != FORMAT or "size" not in card.get("recipe", ()):
            raise ValueError(f"{folder / 'card.json'} is not the card of a segmenter ({FORMAT!r})")
        names = classes(card["recipe"]["size"])
        if card.get("classes") != list(names):
            raise ValueError(
                f"{folder / 'card.json'} is not of the {len(names)} classes of scenes of side {card['recipe']['size']}"
            )
        tensors = read_tensors(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != card.get("sha256"):
            raise ValueError(f"{path} is not the file that its card.json describes: the digests differ; train it again")
        network = SegmenterNetwork(len(names))
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit this network: {' '.join(str(error).split())[:300]}") from None
        return cls(network.to(device), card)

    @classmethod
    def of(cls, pipeline: BcosDiffusionPipeline) -> Segmenter:
        """The one in the package for pictures of the size that a pipeline draws; raises as :meth:`load`."""
        return cls.load(shipped(pipeline.default_size[0]))

    @staticmethod
    def save(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write weights in bf16 and their card, ``facts`` with the recipe included, into ``folder``."""
        path = folder / "model.safetensors"
        write_tensors(path, {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()})
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        names = list(classes(facts["recipe"]["size"]))
        write_json(folder / "card.json", {**facts, "format": FORMAT, "classes": names, "sha256": digest})

    @property
    def name(self) -> str:
        """Which segmenter this is, by its weights: as results state it."""
        return f"segmenter-{self.card['sha256'][:8]}"

    @property
    def size(self) -> int:
        """The side of the pictures that it was trained on; those of another size it reads less well."""
        return int(self.card["recipe"]["size"])

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers of classes stand for."""
        return classes(self.size)

    @property
    def present_share(self) -> float:
        """The share of a noun's usual area from which on it counts as drawn, chosen on validation scenes."""
        return float(self.card["present_share"])

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Log-odds ``[N, classes, H, W]``, fp32 on the CPU, of rgb images ``[N, 3, H, W]`` in [0, 1].

        Raises ValueError for a tensor of another shape or type.
        """
        return torch.cat([self.network(part).cpu() for part in self._batches(images)])

    def probabilities(self, images: Tensor) -> Tensor:
        """How likely each class is at each pixel: ``[N, classes, H, W]`` of images ``[N, 3, H, W]``."""
        return self.logits(images).softmax(1)

    def classes(self, images: Tensor) -> Tensor:
        """The number of each pixel's likeliest class in :attr:`names`: ``[N, H, W]`` of images ``[N, 3, H, W]``."""
        return self.logits(images).argmax(1)

    def masks(self, image: Tensor, words: Sequence[str]) -> dict[str, Tensor]:
        """The region ``[H, W]`` of each word that has one, as ``Scene.masks`` says it of scenes. image: ``[3, H, W]``.

        A noun, singular or plural, has the pixels of its class: none where it was not drawn. A colour has the
        background's pixels, and is left out where the background is of another colour.
        """
        seen, number = self.classes(image[None])[0], numbers(self.size)
        named = {word: SINGULAR[word] for word in words if word in SINGULAR}
        found = {word: seen == number.get(noun, -1) for word, noun in named.items()}
        colour = nearest_colour(image, seen)
        if colour in words:
            found[str(colour)] = seen == 0
        return found

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The means over pixels of what every level of the way up ends with: ``[N, 352]`` of ``[N, 3, H, W]``."""
        parts = (
            torch.cat([x.mean((2, 3)) for x in self.network.maps(part)], dim=1).cpu() for part in self._batches(images)
        )
        return torch.cat(list(parts))

    def _batches(self, images: Tensor) -> Sequence[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or 0 in images.shape:
            raise ValueError(
                "images must be rgb in [0, 1], floating point, [N, 3, H, W] with N, H, W of at least 1;"
                f" got {images.dtype} {list(images.shape)}"
            )
        device = next(self.network.parameters()).device
        return [part.to(device, torch.float32) for part in images.split(_BATCH)]


def nearest_colour(image: Tensor, classes: Tensor) -> str | None:
    """The name of the colour nearest to the median of the background; None where there is no background.

    image: ``[3, H, W]``; classes: ``[H, W]``.
    """
    background = image[:, (classes == 0).to(image.device)].float().cpu()
    if not background.shape[1]:
        return None
    distance = (_COLOURS - background.median(dim=1).values).pow(2).sum(1)
    return _COLOUR_NAMES[int(distance.argmin())]
