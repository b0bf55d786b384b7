"""``bcos-diffusion evaluate``: judge explanations against ground truth, and write one page and its numbers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tqdm import tqdm

from bcos_diffusion.commands.options import Device, Guidance, Model, Sampling, Steps
from bcos_diffusion.commands.progress import progress

if TYPE_CHECKING:
    from bcos_diffusion.evaluation.setup import Options, Setup
    from bcos_diffusion.many import Share
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

Part = Literal["regime_a", "regime_b", "full_run", "missing", "quality", "examples"]
PARTS: tuple[Part, ...] = ("regime_a", "regime_b", "full_run", "missing", "quality", "examples")
KEPT = "measured"
"""The folder, below the report's, of what a run that is stopped goes on from."""


@dataclass(frozen=True)
class Amount:
    """How many scenes, whole runs, scenes for costly methods and pictures a preset measures, and which parts."""

    scenes: int
    validation: int
    runs: int
    costly_scenes: int
    pictures: int
    parts: tuple[Part, ...] = PARTS


PRESETS = {
    "scenes": Amount(1000, 200, 1000, 100, 1000),
    "quick": Amount(4, 4, 4, 0, 16, ("regime_a", "full_run", "quality", "examples")),
}


def evaluate(
    preset: Literal["scenes", "quick"] = "scenes",
    model: Model = None,
    twin: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    scenes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    runs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    pictures: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    costly_scenes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: int = 0,
    only: Annotated[tuple[Part, ...] | None, tyro.conf.arg(metavar="PART …")] = None,
    workers: int = 1,
    share: Annotated[str, tyro.conf.arg(metavar="I/N")] = "0/1",
    device: Device = "auto",
    out: Path = Path("bcos-evaluation"),
) -> None:
    """Judge explanations against ground truth, beside every rival's: one page, report.html, and report.json.

    Run the same command again to go on where it was cut.

    Args:
        preset: How much is measured: "scenes", the whole protocol (hours), or "quick", a first look (minutes).
        twin: A model of ordinary layers and the same budget, to say what exactness costs; without it, that is left out.
        scenes: Test scenes, instead of the preset's.
        runs: Of these, how many have whole sampling runs (regime B, full runs), which take six times as long.
        pictures: Pictures drawn for image quality, instead of the preset's.
        costly_scenes: Scenes on which methods of many passes run, instead of the preset's.
        seed: Of scenes, noise and pictures.
        only: Which parts to measure: regime_a, regime_b, full_run (the budget, and the picture without each word),
            missing, quality, examples; without it, as the preset says.
        workers: Processes of one thread each; on a GPU leave it at 1.
        share: Which part of the work this run does, such as 0/2 and 1/2 of two runs into one folder.
        out: Folder to write into.
    """
    given = {k: v for k, v in locals().items() if k not in ("device", "workers", "share", "out")}
    amount = _amount(preset, scenes, runs, pictures, costly_scenes)
    parts = amount.parts if only is None else only
    mine = parse_share(share)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    drawing = Sampling(model=model, seed=seed, steps=steps, guidance=guidance, device=device)
    pipeline = drawing.load()
    ordinary = None
    if twin is not None:
        ordinary = replace(drawing, model=twin).load()
        ordinary.defaults = pipeline.defaults  # both draw in the same way
    options = _options(pipeline, drawing, amount)
    _require_writable(out)
    result, setup = _measure(out / KEPT, pipeline, ordinary, options, parts, workers, mine)
    if mine.rank > 0:
        print(f"share {share} is done; run --share 0/{mine.world} again when all are, for the report")
        return
    _measure_parts(out / KEPT, result, setup, amount.pictures, parts)
    result["settings"] |= {"preset": preset, "pictures": amount.pictures}
    result |= {"command": _command(given, out), "date": date.today().isoformat()}
    _write(out, result, setup, "examples" in parts)


def _amount(
    preset: str, scenes: int | None, runs: int | None, pictures: int | None, costly_scenes: int | None
) -> Amount:
    """The preset's numbers where none are given. Raises ValueError for fewer pictures than can be compared."""
    usual = PRESETS[preset]
    amount = replace(
        usual,
        scenes=usual.scenes if scenes is None else scenes,
        runs=usual.runs if runs is None else runs,
        pictures=usual.pictures if pictures is None else pictures,
        costly_scenes=usual.costly_scenes if costly_scenes is None else costly_scenes,
    )
    if amount.scenes < 1 or amount.pictures < 8 or min(amount.runs, amount.costly_scenes) < 0:
        raise ValueError(
            "scenes must be at least 1, pictures at least 8, runs and costly scenes at least 0,"
            f" got {amount.scenes}, {amount.pictures}, {amount.runs} and {amount.costly_scenes}"
        )
    most = amount.scenes
    capped = {name: min(getattr(amount, name), most) for name in ("validation", "runs", "costly_scenes")}
    return replace(amount, **capped)


def parse_share(text: str) -> Share:
    """Read "I/N". Raises ValueError for anything else, and for I outside 0 to N - 1."""
    from bcos_diffusion.many import Share

    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(f"share must be I/N with I from 0 to N - 1, such as 0/2, got {text!r}")
    return Share(int(found[1]), int(found[2]))


def _require_writable(out: Path) -> None:
    """Raise OSError now rather than after hours of work."""
    from bcos_kernels.files import write_atomically

    try:
        write_atomically(out / KEPT / ".writable", lambda temporary: temporary.touch())
        (out / KEPT / ".writable").unlink()
    except OSError as error:
        raise OSError(f"cannot write into {out}: {error.__cause__ or error}") from None


def _options(pipeline: BcosDiffusionPipeline, drawing: Sampling, amount: Amount) -> Options:
    from bcos_diffusion.evaluation.setup import Options

    steps, guidance, update = pipeline._settings(drawing.steps, drawing.guidance, None)
    return Options(
        scenes=amount.scenes, validation=amount.validation, runs=amount.runs,
        costly_scenes=amount.costly_scenes, seed=drawing.seed,
        steps=steps, guidance=guidance.scale, update=update,
    )  # fmt: skip


def _measure(
    folder: Path, pipeline: BcosDiffusionPipeline, twin: BcosDiffusionPipeline | None, options: Options,
    only: Sequence[Part], workers: int, share: Share,
) -> tuple[dict[str, Any], Setup]:  # fmt: skip
    """Both regimes and whole runs, by the protocol's own runner."""
    from bcos_diffusion.evaluation import protocol
    from bcos_diffusion.evaluation.plan import plan
    from bcos_diffusion.evaluation.segmenter import Segmenter
    from bcos_diffusion.evaluation.setup import PARTS

    segmenter: Any = Segmenter.of(pipeline)  # its masks are tensors, read as arrays
    parts = tuple(part for part in PARTS if part in only)
    setup, left_out = protocol.prepare(pipeline, options, None, twin, segmenter, parts)
    known = 0

    with progress(len(plan(setup)), "shard") as advance:

        def tick(done: int, total: int, shard: object) -> None:
            nonlocal known
            for _ in range(done - known):
                advance()
            known = done

        result = protocol.measure(folder, setup, left_out, workers, share, tick)
    if "regime_b" in result:
        result["regime_b"]["segmenter"] = {"name": segmenter.name, "miou": segmenter.card["scores"]["miou"]}
    return result, setup


def _measure_parts(folder: Path, result: dict[str, Any], setup: Setup, pictures: int, only: Sequence[Part]) -> None:
    """Add what is measured on sets of pictures, each kept when it is done."""
    options = setup.options
    if "quality" in only:
        for name, contender in setup.contenders.items():
            part = _quality(folder / f"quality-{name}.json", contender.pipeline, options, pictures)
            result.setdefault("quality", {})[name] = part["found"]
            result["seconds"] += part["seconds"]
    if "missing" in only:
        part = _missing(folder, setup.contender.pipeline)
        result["missing"] = part["found"]
        result["seconds"] += part["seconds"]


def _missing(folder: Path, pipeline: BcosDiffusionPipeline) -> dict[str, Any]:
    """Missing concepts and repair, with the model's own steps and guidance, by which it is calibrated."""
    from bcos_diffusion.evaluation.kept import kept
    from bcos_diffusion.evaluation.segmenter import Segmenter
    from bcos_diffusion.many import weights_digest
    from bcos_diffusion.missing.protocol import Sizes, measure_missing

    sizes, segmenter = Sizes(), Segmenter.of(pipeline)

    def work() -> dict[str, Any]:
        with tqdm(unit="picture", disable=None, leave=False) as bar:
            try:
                return measure_missing(pipeline, segmenter, sizes, folder / "missing", bar.update)
            except ValueError as error:  # a model that draws every object, or none, or that cannot be explained
                return {"left_out": str(error)}

    of_model = {"weights": weights_digest(pipeline.model), **asdict(pipeline.defaults)}
    settings = {**of_model, "segmenter": segmenter.name, **asdict(sizes)}
    return kept(folder / "missing.json", settings, work)


def _quality(path: Path, pipeline: BcosDiffusionPipeline, options: Options, pictures: int) -> dict[str, Any]:
    """How good the pictures of one model are."""
    from bcos_diffusion.evaluation.kept import kept
    from bcos_diffusion.evaluation.quality import quality
    from bcos_diffusion.many import weights_digest

    seed, steps = options.seed, options.steps
    _, guidance, _ = pipeline._settings(steps, options.guidance, options.update)
    settings = {"weights": weights_digest(pipeline.model), "count": pictures, "seed": seed, "steps": steps}
    with progress(pictures, "picture") as advance:

        def tick(drawn: int) -> None:
            for _ in range(drawn):
                advance()

        work = partial(quality, pipeline, pictures, seed, steps, guidance.scale, advance=tick)
        return kept(path, settings | guidance.to_dict(), work)


def _command(given: Mapping[str, Any], out: Path) -> str:
    """The command line that measures the same again."""
    words = ["bcos-diffusion", "evaluate"]
    for name, value in given.items():
        if value is None:
            continue
        words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join([*words, "--out", str(out)])


def _write(out: Path, result: dict[str, Any], setup: Setup, with_examples: bool) -> None:
    from bcos_diffusion.evaluation.json_values import for_json
    from bcos_diffusion.evaluation.page.examples import count, sheets
    from bcos_diffusion.evaluation.page.overview import lead
    from bcos_diffusion.evaluation.page.report import report
    from bcos_diffusion.evaluation.plan import plan
    from bcos_diffusion.evaluation.shards import ShardFolder
    from bcos_kernels.files import write_atomically, write_json

    values = for_json(result)
    write_json(out / "report.json", values)
    shown = []
    if with_examples:
        folder = ShardFolder(out / KEPT)
        read = lambda part: folder.read([s for s in plan(setup) if (s.part, s.split) == (part, "test")])  # noqa: E731
        with progress(count(values), "example") as advance:
            shown = sheets(setup, values, read, advance)
    page = report(values, shown)
    write_atomically(out / "report.html", lambda temporary: temporary.write_text(page, encoding="utf-8"))
    print("\n".join(lead(values)))
    print(f"\n{out / 'report.html'} shows it, {out / 'report.json'} has the numbers")
