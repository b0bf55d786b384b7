"""A segmenter of generated pictures, trained on scenes whose masks are exact: which noun does each pixel show?

``python -m bcos_diffusion.evaluation.segmenter --out FOLDER`` trains it again.
"""

from bcos_diffusion.evaluation.segmenter.classes import classes
from bcos_diffusion.evaluation.segmenter.segmenter import Segmenter, nearest_colour, shipped

__all__ = ["Segmenter", "classes", "nearest_colour", "shipped"]
