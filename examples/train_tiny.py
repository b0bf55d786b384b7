"""Train a tiny text-to-image model on scenes, and explain what it draws. The same command goes on where it was cut.

    python examples/train_tiny.py --out tiny --steps 300

A few hundred steps give colours and blobs, not objects: the model in the package took 17,500 steps of a larger network.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.figure import save_explanation
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.train import TrainConfig, train

TINY = UNetConfig(
    size=24, widths=(32, 64), heads=2, text_dim=32, time_dim=32,
    self_attention=(False, True), cross_attention=(True, True),
)  # fmt: skip


def main(out: Path = Path("tiny"), steps: int = 300, batch_size: int = 16, drawing_steps: int = 10) -> None:
    """Train, load what was trained, and explain a picture of it.

    Args:
        out: Folder of the run: log, checkpoints, the trained pipeline, the explanation.
        steps: Steps of training in all.
        batch_size: Scenes of a step.
        drawing_steps: Steps of sampling.
    """
    config = TrainConfig(
        out=out, model=TINY, steps=steps, batch_size=batch_size, warmup=min(50, steps), effect_weight=0.0,
        log_every=max(1, steps // 10), save_every=steps, sample_every=steps,
    )  # fmt: skip
    folder = train(config, on_step=lambda step, values: print(f"step {step}: loss {values['denoising']:.4f}"))

    pipeline = BcosDiffusionPipeline.from_pretrained(folder)
    explanation = explain(pipeline, "a cat on a blue background", seed=1, steps=drawing_steps)
    print("budget:", {name: f"{share:.1%}" for name, share in explanation.budget.items()})
    explained = out / "explanation"
    explained.mkdir(exist_ok=True)
    save_explanation(explanation, explained)
    print(f"wrote {folder} and {explained / 'figure.png'}")


if __name__ == "__main__":
    tyro.cli(main)
