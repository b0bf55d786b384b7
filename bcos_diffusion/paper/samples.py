"""Figure 1: what every model draws for every prompt, from the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bcos_diffusion.paper.models import ManySampling
from bcos_diffusion.paper.record import described, new_figure, progress, save_figure, show, write_result
from bcos_diffusion.staging import staged

PROMPTS = 6


def run(sampling: ManySampling, prompts: tuple[str, ...], count: int, out: Path) -> None:
    """Draw ``count`` pictures of every prompt by every model, and write the grid into ``out``."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    with staged(out) as folder:
        from bcos_diffusion.scenes import prompts as scene_prompts

        prompts = prompts or tuple(scene_prompts(PROMPTS))
        models = sampling.load()
        for _, pipeline in models.values():
            pipeline.model.tokenizer.encode(prompts)  # all are checked before any is drawn
        drawn: dict[str, list[Any]] = {}
        with progress(len(models) * len(prompts), "prompt") as advance:
            for name, (chosen, pipeline) in models.items():
                drawn[name] = []
                for prompt in prompts:
                    drawn[name].append(
                        pipeline.generate([prompt] * count, seed=chosen.seed, **chosen.arguments(pipeline))
                    )
                    advance()
        _draw(drawn, prompts, count, folder / "samples.png")
        result = {"figure": "Figure 1", "prompts": list(prompts), "seeds": [sampling.seed + i for i in range(count)]}
        heads = {name: described("Figure 1", *pair) for name, pair in models.items()}
        for name, head in heads.items():
            head["parameters"] = sum(p.numel() for p in models[name][1].model.parameters())
        write_result(folder, "samples", result | {"models": heads})


def _draw(drawn: dict[str, list[Any]], prompts: tuple[str, ...], count: int, path: Path) -> None:
    """A column a prompt; ``count`` rows a model, whose name stands at the left."""
    import textwrap

    figure = new_figure(1.55 * len(prompts) + 0.5, 1.5 * count * len(drawn) + 0.8)
    grid = figure.subplots(count * len(drawn), len(prompts), squeeze=False)
    for block, (name, pictures) in enumerate(drawn.items()):
        for row in range(count):
            for column, pictures_of_prompt in enumerate(pictures):
                axes = grid[block * count + row, column]
                title = textwrap.fill(prompts[column], 22) if block == row == 0 else ""
                show(axes, pictures_of_prompt[row].float().cpu(), title, size=8)
        first, middle = grid[block * count, 0], 0.5 - 0.56 * (count - 1)  # of the block, in sides of its first picture
        first.text(-0.06, middle, name, transform=first.transAxes, rotation=90, ha="right", va="center", fontsize=9)
    save_figure(figure, path)
