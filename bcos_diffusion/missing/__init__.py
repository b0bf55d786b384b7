"""Was the object of a word drawn? The explanation tells, while drawing, and lets a doomed run be drawn anew.

``score(explanation)`` says how likely each content word was drawn; ``pipeline.generate(..., ensure=True)`` draws until
all are; ``python -m bcos_diffusion.missing fit --model FOLDER`` calibrates another model.
"""

from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.ensure import Ensured, EnsuredImages, Search, Try, ensure, ensure_all
from bcos_diffusion.missing.gain import gain
from bcos_diffusion.missing.measure import measure
from bcos_diffusion.missing.scoring import Scored, score, score_maps

__all__ = [
    "Calibration",
    "Ensured",
    "EnsuredImages",
    "Scored",
    "Search",
    "Try",
    "ensure",
    "ensure_all",
    "gain",
    "measure",
    "score",
    "score_maps",
]
