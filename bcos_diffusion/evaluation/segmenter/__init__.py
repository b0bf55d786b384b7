"""A segmenter of generated pictures, trained on scenes whose masks are exact: which noun does each pixel show?

``python -m bcos_diffusion.evaluation.segmenter --out FOLDER`` trains it again.
"""

from bcos_diffusion.evaluation.segmenter.network import CLASSES
from bcos_diffusion.evaluation.segmenter.segmenter import SHIPPED, Segmenter, nearest_colour

__all__ = ["CLASSES", "SHIPPED", "Segmenter", "nearest_colour"]
