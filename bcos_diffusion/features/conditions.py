"""What a network reads beside x_t: the empty prompt, words that tell nothing, the truth, or what a judge sees.

``empty``: no words, or no class. ``generic``: words that tell no image from another. ``caption``: the image's own
caption, which leaks the labels that a probe is asked for. ``targeted``: the objects that the segmenter in the package
finds in the image, as Revelio takes the classes that CLIP finds: no true label is read. Anything else is a prompt that
all images share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from bcos_diffusion.evaluation.drawn_objects import judge
from bcos_diffusion.evaluation.segmenter import Segmenter, shipped
from bcos_diffusion.features.images import FolderImages, Images
from bcos_diffusion.features.subject import Subject
from bcos_diffusion.scenes.lexicon import with_article

KINDS = ("empty", "generic", "caption", "targeted")
GENERIC = ("an object on a background", "a background")
"""Tried in this order: a model of a word list knows the second alone.

In a B-cos model of a word list only content words carry a value, and these tell one image from another. So there the
generic prompt says exactly as much as the empty one.
"""


def check(subject: Subject, images: Images, conditioning: str) -> None:
    """Raise ValueError for a conditioning that this subject cannot read or these images do not have."""
    if conditioning == "targeted" and isinstance(images, FolderImages):
        raise ValueError(
            "targeted names what the segmenter finds, which knows the objects of scenes alone; for a folder of images"
            " write a prompt, or caption for the names of their classes"
        )
    if conditioning == "generic":
        generic(subject)
    elif conditioning not in ("empty", "targeted"):
        subject.condition([images.caption(0) if conditioning == "caption" else conditioning])


def texts(subject: Subject, images: Images, conditioning: str, numbers: Sequence[int], pictures: Tensor) -> list[str]:
    """The text of each image of a batch. pictures: ``[N, 3, H, W]`` in [0, 1], what these numbers look like."""
    if conditioning == "caption":
        return [images.caption(number) for number in numbers]
    if conditioning == "targeted":
        return found_objects(pictures)
    shared = {"empty": "", "generic": generic(subject) if conditioning == "generic" else ""}.get(conditioning)
    return [conditioning if shared is None else shared] * len(numbers)


def generic(subject: Subject) -> str:
    """The generic prompt of a subject. Raises ValueError where it knows none of :data:`GENERIC`."""
    reasons = []
    for text in GENERIC:
        try:
            subject.condition([text])
            return text
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(f"there is no generic prompt that this model reads ({reasons[-1]}); write one that it does")


def found_objects(pictures: Tensor) -> list[str]:
    """The nouns that the segmenter finds in each image ``[N, 3, H, W]``, largest first; "" where it finds none."""
    found = judge(_segmenter(pictures.shape[-1]), pictures, [[]] * len(pictures))
    ranked = [sorted(drawn.present, key=lambda noun: (-drawn.shares[noun], noun)) for drawn in found]
    return [" and ".join(with_article(noun) for noun in nouns) for nouns in ranked]


@cache
def _segmenter(size: int) -> Segmenter:
    return Segmenter.load(shipped(size))
