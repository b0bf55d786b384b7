"""The whole protocol on one model: plan, work, summary. What is done is kept, so a run can be stopped and gone on with.

Records of scenes lie below ``OUT/shards``, the settings that they depend on in ``OUT/settings.json``; a record depends
on nothing but these and its scene's number, so neither the number of processes nor a stop changes any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bcos_diffusion.baselines.attribution import Attribution
from bcos_diffusion.evaluation.clock import timed
from bcos_diffusion.evaluation.noised import SHARES, noise_scene
from bcos_diffusion.evaluation.plan import plan
from bcos_diffusion.evaluation.provenance import PROTOCOL, environment, machine
from bcos_diffusion.evaluation.setup import PARTS, Contender, Options, Segmenter, Setup
from bcos_diffusion.evaluation.shards import Shard, ShardFolder
from bcos_diffusion.evaluation.summarise import summarise
from bcos_diffusion.evaluation.workers import run_all
from bcos_diffusion.many import Share, agree_on_settings, weights_digest
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes

Progress = Callable[[int, int, Shard | None], object]
"""Called with the shards done, all shards and the one just done: first with those that an earlier run left."""


def run(
    out: Path,
    pipeline: BcosDiffusionPipeline,
    options: Options = Options(),
    methods: Mapping[str, Attribution] | None = None,
    twin: BcosDiffusionPipeline | None = None,
    segmenter: Segmenter | None = None,
    workers: int = 1,
    share: Share = Share(),
    progress: Progress = lambda done, total, shard: None,
) -> dict[str, Any]:
    """Measure what is not yet measured below ``out``, and return all that is: :func:`prepare`, then :func:`measure`."""
    return measure(out, *prepare(pipeline, options, methods, twin, segmenter), workers, share, progress)


def measure(
    out: Path,
    setup: Setup,
    left_out: Mapping[str, str] = {},
    workers: int = 1,
    share: Share = Share(),
    progress: Progress = lambda done, total, shard: None,
) -> dict[str, Any]:
    """Measure what is not yet measured below ``out``, and return all that is.

    setup, left_out: of :func:`prepare`. workers: processes of one thread each; share: of the shards, which of several
    runs on one folder does. Raises ValueError where ``out`` was begun with other settings, saying what differs.
    """
    if workers < 1:
        raise ValueError(f"the number of workers must be at least 1, got {workers}")
    folder, shards = ShardFolder(out), plan(setup)
    agree_on_settings(out, settings(setup))
    mine = [shard for shard in shards[share.rank :: share.world] if not folder.has(shard)]
    done = sum(map(folder.has, shards))
    progress(done, len(shards), None)

    def advance(shard: Shard) -> None:
        nonlocal done
        done += 1
        progress(done, len(shards), shard)

    run_all(setup, folder, mine, workers, advance)
    return result(setup, out, left_out)


def prepare(
    pipeline: BcosDiffusionPipeline,
    options: Options,
    methods: Mapping[str, Attribution] | None = None,
    twin: BcosDiffusionPipeline | None = None,
    segmenter: Segmenter | None = None,
    parts: tuple[str, ...] = PARTS,
) -> tuple[Setup, dict[str, str]]:
    """The setup of a run, and which methods a network cannot be explained by, with the reason.

    methods: by name, all of :func:`~bcos_diffusion.baselines.methods.by_name` by default; each is tried on one scene,
    and one that a network cannot be explained by is left out. twin: the ordinary model of the same size. segmenter:
    without it nothing is drawn freely. parts: which of ``setup.PARTS`` are measured.
    """
    if methods is None:
        from bcos_diffusion.baselines.methods import by_name

        methods = by_name()
    left_out: dict[str, str] = {}
    contenders = {}
    for name, model in (("model", pipeline), ("twin", twin)):
        if model is not None:
            able, reasons = explicable(model, methods, options.seed)
            contenders[name] = Contender(model, able)
            left_out |= {method if name == "model" else f"{method}_{name}": why for method, why in reasons.items()}
    return Setup(contenders["model"], options, contenders.get("twin"), segmenter, parts), left_out


def explicable(
    pipeline: BcosDiffusionPipeline, methods: Mapping[str, Attribution], seed: int
) -> tuple[dict[str, Attribution], dict[str, str]]:
    """The methods that can explain a network, tried on one noised scene, and why the others cannot."""
    noised = noise_scene(pipeline, Scenes(pipeline.default_size[0], "validation", seed)[0], seed)
    able, reasons = {}, {}
    for name, method in methods.items():
        try:
            work = partial(method.denoise, pipeline, noised.batch, noised.x_t[:1], noised.t[:1])
            timed(pipeline.model.device, seed, work)
            able[name] = method
        except ValueError as error:
            reasons[name] = str(error)
    return able, reasons


def settings(setup: Setup) -> dict[str, Any]:
    """All that a record depends on beside its scene's number. How many scenes there are is not in it."""
    options = setup.options
    return {
        "protocol": PROTOCOL,
        **{
            name: {
                "name": contender.pipeline.name,
                "weights": weights_digest(contender.pipeline.model),
                "dtype": str(contender.pipeline.dtype).removeprefix("torch."),
                "device": contender.pipeline.model.device.type,
                "unguided_below": contender.pipeline.defaults.unguided_below,
                "methods": {key: _described(method) for key, method in contender.methods.items()},
            }
            for name, contender in setup.contenders.items()
        },
        "segmenter": _name(setup.segmenter),
        "costly": list(options.costly),
        "costly_scenes": options.costly_scenes,
        "seed": options.seed,
        "steps": options.steps,
        "guidance": options.guidance,
        "update": options.update,
        "levels": list(SHARES),
    }


def _name(segmenter: Segmenter | None) -> str | None:
    return None if segmenter is None else segmenter.name


def _described(method: Attribution) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in sorted(vars(method).items()))
    return f"{type(method).__name__}({given})"


def result(setup: Setup, out: Path, left_out: Mapping[str, str] = {}) -> dict[str, Any]:
    """All numbers from the records that there are below ``out``; ``complete`` says whether these are all."""
    folder, shards = ShardFolder(out), plan(setup)

    def read(part: str, split: str) -> list[dict[str, Any]]:
        return folder.read([shard for shard in shards if (shard.part, shard.split) == (part, split)])

    options = setup.options
    found = {
        "name": setup.contender.pipeline.name,
        "complete": all(map(folder.has, shards)),
        "shards": {"done": sum(map(folder.has, shards)), "all": len(shards)},
        "seconds": folder.seconds(shards),
        "settings": vars(options)
        | {"levels": list(SHARES), "unguided_below": setup.contender.pipeline.defaults.unguided_below},
        "provenance": {
            **{f"{n}_sha256": weights_digest(c.pipeline.model) for n, c in setup.contenders.items()},
            "segmenter": _name(setup.segmenter),
            **environment(),
            "machine": machine(setup.contender.pipeline.model.device),
        },
        "left_out": dict(left_out),
        **summarise(read),
    }
    for part in ("regime_a", "regime_b"):
        label(found.get(part, {}).get("methods", {}), setup)
    return found


def label(methods: dict[str, Any], setup: Setup) -> None:
    """Give each method of a section the name that tables print."""
    for name, contender in setup.contenders.items():
        for key, method in contender.methods.items():
            own = key if name == "model" else f"{key}_{name}"
            if own in methods:
                methods[own]["label"] = method.label if name == "model" else f"{method.label}, ordinary twin"
