"""The commands that draw: explain, demo and generate, for prompts given on the command line or in a file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bcos_diffusion.commands.ensured import Ensuring, warn
from bcos_diffusion.commands.options import Detail, FromFile, Sampling, require_finite
from bcos_diffusion.commands.progress import progress
from bcos_diffusion.prompt_file import slug
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from torch import Tensor

    from bcos_diffusion.commands.ensured import Draw
    from bcos_diffusion.explain import Explanation
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

DEMO_PROMPT = "a cat to the left of a banana on a blue background"
BATCH = 16

Sampled = Annotated[Sampling, tyro.conf.arg(name="")]
Detailed = Annotated[Detail, tyro.conf.arg(name="")]
Many = Annotated[FromFile, tyro.conf.arg(name="")]
Ensured = Annotated[Ensuring, tyro.conf.arg(name="")]


def explain(
    prompt: tyro.conf.Positional[str | None] = None,
    sampling: Sampled = Sampling(),
    detail: Detailed = Detail(),
    many: Many = FromFile(),
    ensuring: Ensured = Ensuring(),
    out: Path = Path("bcos-explanation"),
) -> None:
    """Draw one picture, or those of a file, and say which word drew what: image, overlays, figure, raw maps, JSON.

    Args:
        prompt: What to draw, in quotes.
        out: Folder to write into.
    """
    if (prompt is None) == (many.file is None):
        raise ValueError("give a prompt in quotes, or a file of prompts by --file, and not both")
    if prompt is not None:
        _explain(prompt, sampling, detail, out, ensuring)
        return
    _require_no_ensuring(ensuring)
    from bcos_diffusion.commands.many import explain_file

    explain_file(sampling, detail, many, out)


def demo(sampling: Sampled = Sampling(), out: Path = Path("bcos-demo")) -> None:
    """Explain a picture with the model in the package; needs no argument and no network.

    Args:
        out: Folder to write into.
    """
    _explain(DEMO_PROMPT, sampling, Detail(), out)


def _require_no_ensuring(ensuring: Ensuring) -> None:
    if ensuring.ensure:
        raise ValueError("--ensure draws prompts given on the command line, not those of a file")


def _explain(prompt: str, sampling: Sampling, detail: Detail, out: Path, ensuring: Ensuring = Ensuring()) -> None:
    began = time.monotonic()
    with staged(out) as folder:
        from bcos_diffusion.explain import explain_job
        from bcos_diffusion.explanation.breakdown import explain_in_detail
        from bcos_diffusion.explanation.figure import save_explanation
        from bcos_diffusion.explanation.phrases import require_phrases

        pipeline = sampling.load()
        negative, seed = sampling.negative_prompt, sampling.seed
        options = sampling.options(pipeline)
        job = pipeline.job([prompt], [negative], [seed], **options)
        require_phrases(job.batch, detail.phrase)
        detail.check_box(*job.first.shape[-2:])
        if ensuring.ensure:
            from bcos_diffusion.missing.ensure import strengthen

            found = ensuring.drawer(sampling, pipeline, options)(prompt, seed)
            seed = found.chosen.seed
            job = strengthen(pipeline.job([prompt], [negative], [seed], **options), found.chosen.strength)
            warn(found)
        breakdown = None
        with progress(job.steps, "step") as advance:
            if detail.breakdown:
                explanation, breakdown = explain_in_detail(
                    pipeline, job, prompt, negative, seed, advance, detail.phrase
                )
            else:
                (explanation,) = explain_job(pipeline, job, [prompt], [negative], [seed], advance, detail.phrase)
        require_finite(explanation.trace.image, sampling)
        written = {path.name for path in save_explanation(explanation, folder, detail.save, detail.box, breakdown)}
        again = (out / "explanation.json").exists()
    if again:  # overlays are named after words, so those of another prompt would stay beside the new ones
        for overlay in out.glob("word-[0-9][0-9]-*.png"):
            if overlay.name not in written:
                overlay.unlink()
    print(summary(explanation, detail))
    shown = "figure.png" if detail.save == "all" else "image.png"
    print(f"\n{out / shown} shows it; wrote {out} in {time.monotonic() - began:.1f} s")


def summary(explanation: Explanation, detail: Detail = Detail()) -> str:
    """An explanation in a few lines of text: words by relevance, budget, completeness, and the region asked for."""
    from bcos_diffusion.explanation.figure import named_budget, percent

    width = max(len(part.text) for part in explanation.words) + 1
    lines = [f"“{explanation.prompt}”  (seed {explanation.seed}, {explanation.steps} steps, model {explanation.model})"]
    for part in explanation.words:
        name = f"-{part.text}" if part.negative else part.text
        bar = "█" * round(40 * part.relevance_absolute)
        lines.append(f"  {name:<{width}}  {percent(part.relevance_signed):>7}  {bar}")
    shares = ", ".join(f"{name} {percent(share)}" for name, share in named_budget(explanation).items())
    lines.append(f"budget: {shares}")
    lines.append(f"completeness: the parts add up to the picture with relative error {explanation.completeness:.1e}")
    if detail.box is not None:
        found = explanation.words_for(detail.box)
        made = [f"{share.text} {percent(share.share)}" for share in (*found.words, *found.others) if share.mass]
        lines.append(f"the box {', '.join(map(str, detail.box))} is made of: {', '.join(made)}")
    return "\n".join(lines)


def generate(
    prompts: tyro.conf.Positional[tuple[str, ...]] = (),
    sampling: Sampled = Sampling(),
    many: Many = FromFile(),
    ensuring: Ensured = Ensuring(),
    count: int = 1,
    out: Path = Path("bcos-images"),
) -> None:
    """Draw pictures, one PNG each.

    Args:
        prompts: One or more prompts, each in quotes.
        count: Pictures per prompt, from seeds seed, seed + 1, …
        out: Folder to write into.
    """
    if many.file is not None:
        if prompts or count != 1:
            raise ValueError("with --file, prompts and their seeds come from the file: give no prompt and no count")
        _require_no_ensuring(ensuring)
        from bcos_diffusion.commands.many import generate_file

        generate_file(sampling, many, out)
        return
    if not prompts or count < 1:
        raise ValueError(f"give at least one prompt and a count of at least 1, got {len(prompts)} and {count}")
    with staged(out) as folder:
        from bcos_diffusion.encoding import to_pil

        pipeline = sampling.load()
        options = sampling.options(pipeline)
        for prompt in prompts:
            pipeline.tokenize(prompt, sampling.negative_prompt)  # all are checked before any is drawn
        ensured = ensuring.drawer(sampling, pipeline, options) if ensuring.ensure else None
        names = []
        with progress(len(prompts) * count, "picture") as advance:
            for number, prompt in enumerate(prompts):
                for seed, image in _drawn(pipeline, prompt, count, sampling, options, ensured):
                    require_finite(image, sampling)
                    names.append(f"{number:02d}-{slug(prompt)}-seed{seed}.png")
                    to_pil(image).save(folder / names[-1])
                    advance()
    print("\n".join(str(out / name) for name in names))


def _drawn(
    pipeline: BcosDiffusionPipeline, prompt: str, count: int, sampling: Sampling, options: Mapping[str, Any],
    ensured: Draw | None,
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """The pictures of a prompt, with the seed that each was asked for."""
    if ensured is not None:
        for seed in range(sampling.seed, sampling.seed + count):
            found = ensured(prompt, seed)
            warn(found)
            yield seed, found.image
        return
    for first in range(0, count, BATCH):
        seeds = range(sampling.seed + first, sampling.seed + min(count, first + BATCH))
        images = pipeline.generate([prompt] * len(seeds), sampling.negative_prompt, seeds[0], **options)
        yield from zip(seeds, images, strict=True)
