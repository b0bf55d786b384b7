"""Ask for more than a small model can draw, let the explanation say what is missing, and draw again until it is there.

python examples/find_missing.py --out ensured.png
"""

from __future__ import annotations

from pathlib import Path

import tyro

from bcos_diffusion import missing
from bcos_diffusion.encoding import to_pil
from bcos_diffusion.explain import explain
from bcos_diffusion.pipeline import BcosDiffusionPipeline


def main(
    prompt: str = "owl , balloon and duck on red",
    seed: int = 14,
    steps: int | None = None,
    tries: int = 3,
    out: Path = Path("ensured.png"),
) -> None:
    """Score the words of one picture, then ensure them.

    Args:
        prompt: What to draw; it must name an object.
        seed: Seed of the first try.
        steps: Steps of sampling; the model's own number without it.
        tries: Most pictures to begin.
        out: Where to write the best picture.
    """
    pipeline = BcosDiffusionPipeline.from_pretrained()
    for word in missing.score(explain(pipeline, prompt, seed=seed, steps=steps)):
        print(f"{word.word:12} {word.group:6} {word.probability:4.0%} {'there' if word.drawn else 'MISSING'}")

    found = pipeline.generate([prompt], seed=seed, steps=steps, ensure=True, tries=tries)
    for number, attempt in enumerate(found.pictures[0].tries, start=1):
        print(f"try {number}: seed {attempt.seed}, {attempt.steps} steps taken")
    print("still missing:", found.missing[0] or "nothing")
    to_pil(found.images[0]).save(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main)
