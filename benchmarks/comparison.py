"""The paper's four models, small and trained alike on scenes, beside each other and beside scenes-32.

    python -m benchmarks.scenes_clip --out runs/scenes-clip
    python benchmarks/comparison.py --train --runs runs --out benchmarks/results/comparison.json

``--train`` trains what is not yet trained, and goes on where it was cut; without it the models in ``--runs`` are
measured. What the models draw and say is measured by the commands of ``bcos-diffusion paper``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from machine import describe
from PIL import Image

from bcos_diffusion import cli
from bcos_diffusion.scenes import Scenes
from bcos_kernels.files import write_json

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MODELS = ("bcos-x0", "bcos-clip-x0", "bcos-clip-eps", "vanilla")
EXPLAINED = MODELS[:3]
TRAINING = {
    "steps": 500, "batch-size": 32, "warmup": 100, "learning-rate": 1e-3, "cooldown": 0.2,
    "save-every": 100, "sample-every": 250,
}  # fmt: skip
COUNTS = {"reconstruction": 8, "tokens": 3000, "quality": 300}
SCENE, START_T = 30, 500
"""The test scene, and the timestep it is noised to, whose denoising shows what tokens give: soon trained models draw
little from noise alone, but go on from a picture."""
RAW = ("tokens", "measured")
"""What stays in the folder of a command: an entry per token or picture, not a table."""
PROMPTS = ("a cat on a blue background", "a banana on a red background", "a penguin above a rose", "green")


def run(*arguments: object) -> None:
    """One command of ``bcos-diffusion``; ends the program where it fails."""
    if failed := cli.main([str(argument) for argument in arguments]):
        sys.exit(failed)


def train(runs: Path) -> None:
    """Train every model, or finish its training."""
    options = [word for name, value in TRAINING.items() for word in (f"--{name}", value)]
    for name in MODELS:
        run("train", "--paper.name", name, "--paper.text", runs / "scenes-clip", "--out", runs / name, *options)


def from_scene(folder: Path) -> list[object]:
    """Arguments that draw a test scene anew, with its caption and no guidance, from START_T on."""
    scene = Scenes(32, "test")[SCENE]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(folder / "scene.png")
    return [scene.caption, "--image", folder / "scene.png", "--start-t", START_T, "--guidance", 1]


def measure(runs: Path) -> None:
    """Draw and measure every model; what has been measured is kept."""
    out, folders = runs / "comparison", {name: runs / name / "pipeline" for name in MODELS}
    for name in EXPLAINED:
        for command in ("reconstruction", "epsilon", "tokens"):
            target = out / name / command
            if not (target / f"{command}.json").is_file():
                said = from_scene(out) if command == "epsilon" else ["--count", COUNTS[command]]
                run("paper", command, "--model", folders[name], *said, "--out", target)
    many = [word for folder in (*folders.values(), "scenes-32") for word in ("--model", folder)]
    run("paper", "samples", *PROMPTS, *many, "--out", out / "samples")
    run("paper", "quality", *many, "--count", COUNTS["quality"], "--out", out / "quality")


def collect(runs: Path) -> dict[str, Any]:
    """All that was measured, and the pictures beside the docs."""
    out = runs / "comparison"
    shutil.copyfile(out / "samples" / "samples.png", IMAGES / "comparison-samples.png")
    shutil.copyfile(out / "bcos-clip-eps" / "epsilon" / "epsilon.png", IMAGES / "comparison-epsilon.png")

    def read(folder: Path) -> dict[str, Any]:
        values = json.loads((folder / f"{folder.name}.json").read_text(encoding="utf-8"))
        return {key: value for key, value in values.items() if key not in RAW}

    models = {name: {c: read(out / name / c) for c in ("reconstruction", "epsilon", "tokens")} for name in EXPLAINED}
    logs = {name: (runs / name / "log.jsonl").read_text(encoding="utf-8").splitlines() for name in MODELS}
    return {
        "training": TRAINING,
        "losses": {name: json.loads(lines[-1])["denoising"] for name, lines in logs.items()},
        "clip": json.loads((runs / "scenes-clip" / "log.json").read_text(encoding="utf-8")),
        "models": models,
        "quality": read(out / "quality"),
    }


def main() -> None:
    """Train where asked, measure, collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of scenes-clip and of the models")
    parser.add_argument("--train", action="store_true", help="train what is not yet trained")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    if options.train:
        train(options.runs)
    measure(options.runs)
    write_json(options.out, {"machine": describe("cpu"), **collect(options.runs)})


if __name__ == "__main__":
    main()
