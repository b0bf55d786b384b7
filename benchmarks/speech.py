"""How much of a picture the words of each part of speech cover, by exact contributions and by DAAM (its Figure 5).

    python benchmarks/speech.py --pictures 200 --out benchmarks/results/speech.json

Pictures are drawn from the captions of test scenes by the shipped model, whole runs with guidance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import describe
from tqdm import tqdm

from bcos_diffusion.baselines.attribution import Attribution
from bcos_diffusion.baselines.daam import Daam
from bcos_diffusion.evaluation.speech import TAU, Spoken, intensities, spoken_in
from bcos_diffusion.explanation.attribution import Exact
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes
from bcos_kernels.files import write_json

BATCH = 10
METHODS: tuple[Attribution, ...] = (Exact(), Daam())


def main() -> None:
    """Draw, attribute and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained("scenes-32")
    _, captions = Scenes(size=pipeline.default_size[0], split="test").batch(range(options.pictures))
    pictures: dict[str, list[list[Spoken]]] = {method.name: [] for method in METHODS}
    for first in tqdm(range(0, len(captions), BATCH), unit="batch", disable=None):
        some = captions[first : first + BATCH]
        job = pipeline.job(some, [None] * len(some), list(range(first, first + len(some))))
        for method in METHODS:
            pictures[method.name] += spoken_in(method, pipeline, job)
    found = {name: intensities(words) for name, words in pictures.items()}
    steps, guidance = pipeline.defaults.steps, pipeline.defaults.guidance
    settings = {"pictures": len(captions), "tau": TAU, "steps": steps, "guidance": guidance}
    write_json(options.out, {"machine": describe(), "settings": settings, "methods": found})


if __name__ == "__main__":
    main()
