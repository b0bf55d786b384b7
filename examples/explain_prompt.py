"""Draw a picture from words, and say which word drew what: maps, relevance, budget, and the words of a region.

python examples/explain_prompt.py --out explained
"""

from __future__ import annotations

from pathlib import Path

import tyro

from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.figure import save_explanation
from bcos_diffusion.pipeline import BcosDiffusionPipeline


def main(
    prompt: str = "a cat left of a banana on a blue background",
    seed: int = 5,
    steps: int | None = None,
    out: Path = Path("explained"),
) -> None:
    """Explain a prompt by the model in the package.

    Args:
        prompt: What to draw.
        seed: Seed of the first noise.
        steps: Steps of sampling; the model's own number without it.
        out: Folder to write into.
    """
    pipeline = BcosDiffusionPipeline.from_pretrained()
    explanation = explain(pipeline, prompt, seed=seed, steps=steps)

    for word in explanation.words:  # word.map: [6, H, W]; all maps and that of x_T sum to the picture
        print(f"{word.text:12} {word.relevance_signed:7.1%}")
    print("budget:", {name: f"{share:.1%}" for name, share in explanation.budget.items()})
    print(f"the parts add up to the picture with relative error {explanation.completeness:.1e}")

    height, width = explanation.image.shape[1:]
    left_half = (0, 0, width // 2, height)  # left, top, right, bottom; or any mask [H, W]
    for share in explanation.words_for(left_half).words:
        if share.mass:
            print(f"the left half is by {share.share:.1%} {share.text}, and its colour by {share.push:.1%}")

    out.mkdir(parents=True, exist_ok=True)
    for path in save_explanation(explanation, out):
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
