"""The command ``bcos-diffusion``: demo, generate, explain, train, data, paper.

Heavy imports happen inside the commands, so that ``--help`` answers at once. What a user can get
wrong ends in one line on stderr and exit code 1; a traceback is a bug of ours.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tqdm import tqdm

from bcos_diffusion.sampling import Sampling
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bcos_diffusion.explain import Explanation

PROGRAM = "bcos-diffusion"
DESCRIPTION = "Draw pictures from words, and see which word drew what."
DEMO_PROMPT = "a cat to the left of a banana on a blue background"
BATCH = 16

Sampled = Annotated[Sampling, tyro.conf.arg(name="")]


@contextmanager
def _progress(total: int, unit: str) -> Iterator[Callable[..., None]]:
    """A bar on an interactive terminal, nothing elsewhere; yields a function that moves it on by one."""
    with tqdm(total=total, unit=unit, disable=None, leave=False) as bar:
        yield lambda *_: bar.update()  # type: ignore[misc]


def explain(
    prompt: tyro.conf.Positional[str], sampling: Sampled = Sampling(), out: Path = Path("bcos-explanation")
) -> None:
    """Draw one picture and say which word drew what: image, overlays, figure, raw maps, JSON.

    Args:
        prompt: What to draw, in quotes.
        out: Folder to write into.
    """
    _explain(prompt, sampling, out)


def demo(sampling: Sampled = Sampling(), out: Path = Path("bcos-demo")) -> None:
    """Explain a picture with the model in the package; needs no argument and no network.

    Args:
        out: Folder to write into.
    """
    _explain(DEMO_PROMPT, sampling, out)


def _explain(prompt: str, sampling: Sampling, out: Path) -> None:
    began = time.monotonic()
    with staged(out) as folder:
        from bcos_diffusion.explain import explain as run
        from bcos_diffusion.figure import save_explanation

        pipeline = sampling.load()
        steps = pipeline.defaults.steps if sampling.steps is None else sampling.steps
        with _progress(steps, "step") as advance:
            explanation = run(pipeline, prompt, seed=sampling.seed, callback=advance, **sampling.options)
        _require_finite(explanation.trace.image, sampling)
        written = {path.name for path in save_explanation(explanation, folder)}
        again = (out / "explanation.json").exists()
    if again:  # overlays are named after words, so those of another prompt would stay beside the new ones
        for overlay in out.glob("word-[0-9][0-9]-*.png"):
            if overlay.name not in written:
                overlay.unlink()
    print(summary(explanation))
    print(f"\n{out / 'figure.png'} shows it all; wrote {out} in {time.monotonic() - began:.1f} s")


def _require_finite(image: Tensor, sampling: Sampling) -> None:
    if not bool(image.isfinite().all()):
        hint = "; try --dtype float32" if sampling.dtype in ("float16", "bfloat16") else ""
        raise ValueError(f"the picture has values that are not finite: damaged weights or too much guidance{hint}")


def summary(explanation: Explanation) -> str:
    """An explanation in a few lines of text: words by relevance, budget, completeness."""
    from bcos_diffusion.figure import percent

    width = max(len(part.text) for part in explanation.words) + 1
    lines = [f"“{explanation.prompt}”  (seed {explanation.seed}, {explanation.steps} steps, model {explanation.model})"]
    for part in explanation.words:
        name = f"-{part.text}" if part.negative else part.text
        bar = "█" * round(40 * part.relevance_absolute)
        lines.append(f"  {name:<{width}}  {percent(part.relevance_signed):>7}  {bar}")
    shares = ", ".join(f"{name} {percent(share)}" for name, share in explanation.budget.items())
    lines.append(f"budget: {shares}")
    lines.append(f"completeness: the parts add up to the picture with relative error {explanation.completeness:.1e}")
    return "\n".join(lines)


def generate(
    prompts: tyro.conf.Positional[tuple[str, ...]],
    sampling: Sampled = Sampling(),
    count: int = 1,
    out: Path = Path("bcos-images"),
) -> None:
    """Draw pictures, one PNG each.

    Args:
        prompts: One or more prompts, each in quotes.
        count: Pictures per prompt, from seeds seed, seed + 1, …
        out: Folder to write into.
    """
    if not prompts or count < 1:
        raise ValueError(f"give at least one prompt and a count of at least 1, got {len(prompts)} and {count}")
    with staged(out) as folder:
        from bcos_diffusion.encoding import to_pil

        pipeline = sampling.load()
        for prompt in prompts:
            pipeline.tokenize(prompt, sampling.negative_prompt)  # all are checked before any is drawn
        names = []
        with _progress(len(prompts) * count, "picture") as advance:
            for number, prompt in enumerate(prompts):
                slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]
                for first in range(0, count, BATCH):
                    seeds = range(sampling.seed + first, sampling.seed + min(count, first + BATCH))
                    images = pipeline.generate([prompt] * len(seeds), seed=seeds[0], **sampling.options)
                    _require_finite(images, sampling)
                    for seed, image in zip(seeds, images, strict=True):
                        names.append(f"{number:02d}-{slug}-seed{seed}.png")
                        to_pil(image).save(folder / names[-1])
                        advance()
    print("\n".join(str(out / name) for name in names))


def data(
    out: Path = Path("bcos-data"),
    split: Literal["train", "validation", "test"] = "train",
    count: int = 60,
    size: int = 64,
    seed: int = 0,
) -> None:
    """Show what models are trained on: scenes, captions and the mask of each word, as PNG and HTML.

    Args:
        out: Folder to write into.
        split: Which stream of scenes.
        count: How many scenes, from the first on.
        size: Side of a scene in pixels, at least 24.
        seed: The data set's seed.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    from bcos_diffusion.scenes import Scenes
    from bcos_diffusion.scenes.sheet import write_sheets

    scenes = Scenes(size=size, split=split, seed=seed, length=count)
    with staged(out) as folder, _progress(count, "scene") as advance:
        write_sheets(scenes, folder, advance)
    print(f"open {out / 'index.html'} to browse {count} scenes")


def _train_command() -> Callable[..., None]:
    """The trainer's command; its options are those of the trainer itself, whose import takes seconds."""
    from bcos_diffusion.train import TrainConfig
    from bcos_diffusion.train import train as run

    def train(config: Annotated[TrainConfig, tyro.conf.arg(name="")]) -> None:
        print(f"wrote {run(config)}; explain with: {PROGRAM} explain PROMPT --model {config.out / 'pipeline'}")

    # An annotation from a local import can only be read by value.
    train.__annotations__["config"] = Annotated[TrainConfig, tyro.conf.arg(name="")]
    train.__doc__ = _train_later.__doc__
    return train


def _train_later() -> None:
    """Train a model on scenes; run the same command again to go on where it was cut."""


def _paper_later() -> None:
    """Draw the figures and tables of the paper; ``paper --help`` names them."""


def _chosen(arguments: list[str]) -> tuple[dict[str, Callable[..., Any]], str, str, list[str]]:
    """The commands to choose from, the program's name and description, and what is left of the arguments."""
    if arguments[:1] == ["paper"]:
        from bcos_diffusion.paper import command

        return command.COMMANDS, f"{PROGRAM} paper", command.DESCRIPTION, arguments[1:]
    train = _train_command() if arguments[:1] == ["train"] else _train_later
    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "generate": generate,
        "explain": explain,
        "train": train,
        "data": data,
        "paper": _paper_later,
    }
    return commands, PROGRAM, DESCRIPTION, arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Arguments are those of the process where not given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands, program, description, arguments = _chosen(arguments)
    try:
        with _ended_by_unwinding():
            tyro.extras.subcommand_cli_from_dict(commands, prog=program, description=description, args=arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # who read our output has left
        return 1
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _ended_by_unwinding() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, as Ctrl-C raises, so that what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__
