"""Files of prompts on the command line: alone, or by many processes that accelerate launch or torchrun started."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from bcos_diffusion.commands.options import Detail, FromFile, Sampling, require_finite
from bcos_diffusion.commands.progress import progress
from bcos_diffusion.encoding import to_pil
from bcos_diffusion.explain import explain_job
from bcos_diffusion.explanation.breakdown import explain_in_detail
from bcos_diffusion.explanation.figure import save_explanation
from bcos_diffusion.many import INDEX, Collection, Save, Share, draw_all, tensor_digest, weights_digest
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.prompt_file import Item, read_prompts


def generate_file(sampling: Sampling, many: FromFile, out: Path) -> None:
    """Draw the pictures of a file that are not yet in ``out``."""
    share, pipeline, options = _begin(sampling, many, out)

    def draw(items: list[Item]) -> Save:
        images = pipeline.draw(pipeline.job(*_columns(items), **options))

        def save(place: int, folder: Path) -> dict[str, Any]:
            require_finite(images[place], sampling)
            to_pil(images[place]).save(folder / "image.png")
            return {}

        return save

    settings = _settings("generate", pipeline, options, sampling, many)
    _draw(Collection(out, settings, _items(pipeline, sampling, many), folders=False), share, many.batch, draw)


def explain_file(sampling: Sampling, detail: Detail, many: FromFile, out: Path) -> None:
    """Draw and explain the pictures of a file that are not yet in ``out``."""
    if detail.breakdown:
        many = dataclasses.replace(many, batch=1)
    share, pipeline, options = _begin(sampling, many, out)
    detail.check_box(*options["size"])

    def draw(items: list[Item]) -> Save:
        prompts, negatives, seeds = _columns(items)
        job = pipeline.job(prompts, negatives, seeds, **options)
        breakdowns: list[Any]
        if detail.breakdown:
            found = explain_in_detail(pipeline, job, prompts[0], negatives[0], seeds[0], phrases=detail.phrase)
            explanations, breakdowns = [found[0]], [found[1]]
        else:
            explanations = explain_job(pipeline, job, prompts, negatives, seeds, phrases=detail.phrase)
            breakdowns = [None] * len(items)

        def save(place: int, folder: Path) -> dict[str, Any]:
            explanation = explanations[place]
            require_finite(explanation.trace.image, sampling)
            save_explanation(explanation, folder, detail.save, detail.box, breakdowns[place])
            return explanation.to_dict()

        return save

    settings = _settings("explain", pipeline, options, sampling, many) | dataclasses.asdict(detail)
    settings["phrase"], settings["box"] = list(detail.phrase), detail.box and list(detail.box)
    _draw(Collection(out, settings, _items(pipeline, sampling, many), folders=True), share, many.batch, draw)


def _begin(sampling: Sampling, many: FromFile, out: Path) -> tuple[Share, BcosDiffusionPipeline, dict[str, Any]]:
    """Find this process's share and device, and load the model, once ``out`` has shown that it can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable-{id(out)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into {out}: {error.strerror or error}") from None
    on_cpu = sampling.device == "cpu" or (sampling.device == "auto" and not torch.cuda.is_available())
    state = PartialState(cpu=on_cpu)
    if state.num_processes > 1 and sampling.device == "auto":
        sampling = dataclasses.replace(sampling, device=str(state.device))
    torch.set_num_threads(many.threads)
    pipeline = sampling.load()
    return Share(state.process_index, state.num_processes), pipeline, sampling.options(pipeline)


def _items(pipeline: BcosDiffusionPipeline, sampling: Sampling, many: FromFile) -> list[Item]:
    assert many.file is not None
    return read_prompts(many.file, sampling.seed, sampling.negative_prompt, pipeline.tokenize)


def _columns(items: list[Item]) -> tuple[list[str], list[str | None], list[int]]:
    return [i.prompt for i in items], [i.negative_prompt for i in items], [i.seed for i in items]


def _settings(
    command: str, pipeline: BcosDiffusionPipeline, options: dict[str, Any], sampling: Sampling, many: FromFile
) -> dict[str, Any]:
    """All that a picture depends on beside its line of the file."""
    start = options["start"]
    steps, guidance, update = pipeline._settings(options["steps"], options["guidance"], options["update"], start)
    return {
        "command": command,
        "model": pipeline.name,
        "weights": weights_digest(pipeline.model),
        "steps": steps,
        **guidance.to_dict(),
        "update": update,
        "size": list(options["size"][::-1]),
        "image": None if start is None else tensor_digest(start.image),
        "start_t": sampling.start_t,
        "dtype": sampling.dtype,
        "device": pipeline.model.device.type,
        "batch": many.batch,
        "threads": many.threads,
    }


def _draw(collection: Collection, share: Share, batch: int, draw: Callable[[list[Item]], Save]) -> None:
    mine = -(-len(collection.items) // batch)
    with progress(len(range(share.rank, mine, share.world)), "batch", quiet=share.rank > 0) as advance:
        new = draw_all(collection, share, batch, draw, advance)
    whole = collection.finish()
    PartialState().destroy_process_group()
    who = f"process {share.rank} of {share.world}: " if share.world > 1 else ""
    total = f"all {len(collection.items)} are in {collection.out}, listed in {INDEX}"
    print(f"{who}{new} new picture(s); {total if whole else 'others are still being drawn'}")
