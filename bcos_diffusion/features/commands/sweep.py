"""``bcos-diffusion features sweep``: compare layers, timesteps, prompts and models, and write one page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from bcos_diffusion.commands.progress import progress

REPORT = ("report.html", "report.json")


def sweep(
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL=SOURCE …")] = ("scenes-32",),
    layers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAYER …")] = (),
    timesteps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="T …")] = (25, 100, 200, 500),
    conditionings: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROMPT …")] = ("empty", "generic", "targeted"),
    count: Annotated[int, tyro.conf.arg(metavar="N")] = 2400,
    workers: int = 1,
    seed: int = 0,
    out: Path = Path("bcos-sweep"),
) -> None:
    """Compare what layers, timesteps, prompts and models represent: one page, report.html, and report.json.

    Run the same command again to go on where it was cut; with another seed or count, into another folder.

    Args:
        models: Folders, hub ids or names in the package of models of one size, each with a name for the tables; of the
            first the untrained network and what it sees of the images are the baselines.
        layers: Names or aliases of layers; without them, bottleneck and up_ft0 … of a U-Net, five blocks of a
            transformer.
        timesteps: Of the noise on the images; prompts are compared at the first.
        conditionings: Prompts: empty, generic, targeted (the objects that a segmenter finds), caption, or a text of
            your own; timesteps are compared under the first.
        count: Test scenes, of which two fifths have one kind of object; 2400 take about ten minutes for one small
            model on two cores, and six for each other.
        workers: Processes of one thread each.
        seed: Of scenes, noise, autoencoders and probes.
        out: Folder to write into.
    """
    from bcos_diffusion.features.sweep import Model, SweepPlan
    from bcos_diffusion.features.sweep.page.report import write
    from bcos_diffusion.features.sweep.run import begin, values_of

    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    plan = SweepPlan(tuple(map(Model.parse, models)), layers, timesteps, conditionings, count, seed)
    command = _command({"models": models, "layers": layers, "timesteps": timesteps, "conditionings": conditionings,
                        "count": (count,), "seed": (seed,), "out": (out,)})  # fmt: skip
    start = time.perf_counter()
    bars: list[Any] = []

    def stage(name: str, parts: int) -> Callable[[], object]:
        while bars:
            bars.pop().close()
        bars.append(tqdm(total=parts, desc=name, disable=None, leave=False))
        return bars[-1].update

    work = begin(plan, out, workers, stage)
    values = values_of(work, workers, stage)
    while bars:
        bars.pop().close()
    with progress(len(models), "model") as advance:
        told = write(work, values, command, advance)
    print("\n".join(told))
    print(
        f"\n{out / REPORT[0]} shows it, {out / REPORT[1]} has the numbers; it took {time.perf_counter() - start:.0f} s"
    )


def _command(given: Mapping[str, tuple[object, ...]]) -> str:
    """The command line that measures the same again; the number of processes changes no number."""
    words = [word for name, values in given.items() if values for word in (f"--{name}", *map(str, values))]
    return shlex.join(["bcos-diffusion", "features", "sweep", *words])
