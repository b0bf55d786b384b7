"""Average the weights of two models of one shape: a trained one, and itself after a fine-tuning that changed too much.

    python benchmarks/average_weights.py runs/scenes/pipeline runs/tied/pipeline --share 0.5 --out runs/averaged

What the fine-tuning is for comes with a share of it, and what it costs with less (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models").
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bcos_diffusion.pipeline import BcosDiffusionPipeline


def average(first: BcosDiffusionPipeline, second: BcosDiffusionPipeline, share: float) -> BcosDiffusionPipeline:
    """``(1 - share) * first + share * second``. Raises ValueError for models of different shapes or another share."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    if first.model.to_dict() != second.model.to_dict():
        raise ValueError("the models are of different shapes")
    others = second.model.state_dict()
    weights = {name: (1 - share) * value + share * others[name] for name, value in first.model.state_dict().items()}
    return BcosDiffusionPipeline.from_model(first.model, weights, first.defaults, first.name)


def main() -> None:
    """Average two folders or hub ids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--share", type=float, required=True, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    models = [BcosDiffusionPipeline.from_pretrained(source) for source in (options.first, options.second)]
    average(*models, options.share).save_pretrained(options.out)


if __name__ == "__main__":
    main()
