"""How far a pipeline's explanations are true, measured on test scenes and test prompts.

``python -m bcos_diffusion.evaluation --model DIR --out FILE.json`` prints and writes every number,
with a 95% bootstrap interval over prompts or scenes.
"""

from bcos_diffusion.evaluation.report import evaluate
from bcos_diffusion.evaluation.table import describe

__all__ = ["describe", "evaluate"]
