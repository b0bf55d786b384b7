"""``bcos-diffusion features extract``: read what layers put out for many images, to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tqdm import tqdm
from tyro.conf import arg

from bcos_diffusion.commands.evaluate import parse_share
from bcos_diffusion.commands.options import Device, Model

if TYPE_CHECKING:
    from bcos_diffusion.features.images import Images
    from bcos_diffusion.features.plan import Plan
    from bcos_diffusion.features.store import FeatureStore
    from bcos_diffusion.features.subject import Subject
    from bcos_diffusion.many import Share

COUNT = 2000


def extract(
    model: Model = None,
    layers: Annotated[tuple[str, ...], arg(metavar="LAYER …")] = (),
    timesteps: Annotated[tuple[int, ...], arg(metavar="T …")] = (25,),
    conditionings: Annotated[tuple[str, ...], arg(metavar="empty|generic|caption|targeted|PROMPT …")] = ("empty",),
    images: Annotated[str, arg(metavar="scenes|generated|FOLDER")] = "scenes",
    split: Literal["train", "validation", "test"] = "test",
    one_kind: bool = False,
    prompts: Annotated[Path | None, arg(metavar="FILE")] = None,
    on_the_way: bool = False,
    count: Annotated[int | None, arg(metavar="N")] = None,
    spatial: bool = False,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    batch: int = 16,
    seed: int = 0,
    device: Device = "auto",
    workers: int = 1,
    share: Annotated[str, arg(metavar="I/N")] = "0/1",
    out: Path = Path("bcos-features"),
) -> None:
    """Read what layers put out for many images, to disk; run again to go on where it was cut.

    Args:
        layers: Names or aliases, which `features layers` lists; without them, the bottleneck and all levels on the way
            up of a U-Net, or five blocks of a transformer.
        timesteps: How noisy the images are made, 0 to 999.
        conditionings: What the network reads beside them: nothing, words that tell nothing, each image's caption, what
            a segmenter sees in it, or a prompt in quotes.
        images: Scenes with known labels, pictures that the model draws, or a folder of images, whose folders are
            classes.
        split: Of scenes, and of the captions that pictures are drawn from.
        one_kind: Only scenes of one kind of object.
        prompts: What to draw, instead of the captions of scenes: .txt (one a line), .csv or .jsonl.
        on_the_way: Read pictures as they are drawn, at the step nearest to each timestep, and not noised afterwards.
        count: How many images, from the first on; without it 2000, or all there are in a folder or file.
        spatial: Keep every place of a layer, and not the mean over places.
        dtype: What features are stored in.
        batch: Images a forward pass.
        seed: Of the noise, of scenes and of the order of a folder.
        workers: Processes of one thread each; on a GPU leave it at 1.
        share: Which part of the work this run does, such as 0/2 and 1/2 of two runs into one folder.
        out: Folder to write into.
    """
    from bcos_diffusion.commands.options import find_device
    from bcos_diffusion.features.layers import own_layers
    from bcos_diffusion.features.model_record import load
    from bcos_diffusion.features.plan import Plan

    mine = parse_share(share)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if images != "generated" and (prompts is not None or on_the_way):
        raise ValueError("--prompts and --on-the-way are for pictures that the model draws: --images generated")
    subject = load(model, str(find_device(device)))
    if images == "generated":
        source = _generated(subject, prompts, split, one_kind, on_the_way, count, seed)
    else:
        source = _real(subject, images, split, one_kind, seed)
    if count is None:
        count = COUNT if images == "scenes" else len(source)
    read = own_layers(subject, layers)
    plan = Plan(source, count, read, timesteps, conditionings, not spatial, dtype, batch, seed)
    store = _read(subject, plan, out, workers, mine, model)
    if store is None:
        print(f"share {share} is done; others are still being read into {out}")
        return
    print(f"wrote {out}; make a dictionary of a layer with: bcos-diffusion features sae {out}{_choice(plan)}")


def _read(
    subject: Subject, plan: Plan, out: Path, workers: int, share: Share, model: str | None
) -> FeatureStore | None:
    """Read it with a bar; None where other shares are still to be read."""
    from bcos_diffusion.features.extraction import extract as run
    from bcos_diffusion.features.model_record import write_record

    with tqdm(unit="shard", disable=None, leave=False) as bar:

        def begin(summary: str, shards: int) -> None:
            write_record(out, model)
            print(summary, flush=True)
            bar.reset(shards)

        return run(subject, plan, out, workers, share, begin, lambda shard: bar.update())


def _real(subject: Subject, images: str, split: str, one_kind: bool, seed: int) -> Images:
    from bcos_diffusion.features.images import FolderImages, SceneImages

    if images == "scenes":
        return SceneImages(subject.size, split, one_kind, seed)
    return FolderImages(images, subject.size, seed)


def _generated(
    subject: Subject, prompts: Path | None, split: str, one_kind: bool, on_the_way: bool, count: int | None, seed: int
) -> Images:
    """Pictures of prompts from a file, or of as many captions of scenes as are asked for."""
    from bcos_diffusion.features.generated import GeneratedImages
    from bcos_diffusion.features.images import SceneImages
    from bcos_diffusion.features.pipeline_subject import PipelineSubject
    from bcos_diffusion.prompt_file import read_prompts

    if not isinstance(subject, PipelineSubject):
        raise ValueError(f"generated pictures are drawn by models of this package, and {subject.name} is none")
    if prompts is None:
        scenes = SceneImages(subject.size, split, one_kind, seed)
        texts = [scenes.caption(number) for number in range(max(1, COUNT if count is None else count))]
    else:
        items = read_prompts(prompts, seed, None, subject.pipeline.tokenize)
        if wrong := [i for i in items if i.negative_prompt is not None or i.seed != seed + i.number]:
            raise ValueError(
                f"{prompts} line {wrong[0].line}: pictures are drawn from seeds {seed}, {seed + 1}, … without negative"
                " prompts; give prompts alone"
            )
        texts = [item.prompt for item in items]
    return GeneratedImages(subject.pipeline, texts, seed, "run" if on_the_way else "noised")


def _choice(plan: Plan) -> str:
    """What the next command must be told where there is more than one of it."""
    told = (("layer", plan.layers), ("t", plan.timesteps), ("conditioning", plan.conditionings))
    return "".join(f" --{name} {values[-1]}" for name, values in told if len(values) > 1)
