"""The classes of a segmenter: the background and the nouns of scenes of its size."""

from __future__ import annotations

from functools import cache

from bcos_diffusion.scenes import nouns


def classes(size: int) -> tuple[str, ...]:
    """Class 0 is what no object covers; class i is noun i, in alphabetical order, of scenes of side ``size``."""
    return ("background", *nouns(size))


@cache
def numbers(size: int) -> dict[str, int]:
    """The number of each of the :func:`classes`."""
    return {name: number for number, name in enumerate(classes(size))}
