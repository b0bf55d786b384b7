"""The command ``bcos-diffusion``: demo, generate, explain, app, evaluate, train, data, laion, paper, features.

Heavy imports happen inside the commands, so that ``--help`` answers at once. What a user can get
wrong ends in one line on stderr and exit code 1; a traceback is a bug of ours.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bcos_diffusion.commands.app import app
from bcos_diffusion.commands.draw import demo, explain, generate
from bcos_diffusion.commands.evaluate import evaluate
from bcos_diffusion.commands.progress import progress
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "bcos-diffusion"
DESCRIPTION = "Draw pictures from words, and see which word drew what."


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
    with staged(out) as folder, progress(count, "scene") as advance:
        write_sheets(scenes, folder, advance)
    print(f"open {out / 'index.html'} to browse {count} scenes")


def _train_command() -> Callable[..., None]:
    """The trainer's command; its options are those of the trainer itself, whose import takes seconds."""
    from accelerate import PartialState

    from bcos_diffusion.train import TrainConfig
    from bcos_diffusion.train import train as run

    def train(config: Annotated[TrainConfig, tyro.conf.arg(name="")]) -> None:
        folder = run(config)
        if PartialState().is_main_process:
            print(f"wrote {folder}; explain with: {PROGRAM} explain PROMPT --model {folder}")

    # An annotation from a local import can only be read by value.
    train.__annotations__["config"] = Annotated[TrainConfig, tyro.conf.arg(name="")]
    train.__doc__ = _train_later.__doc__
    return train


def _train_later() -> None:
    """Train a model on scenes or on shards; run the same command again to go on where it was cut."""


def _laion_later() -> None:
    """LAION as training data: select captions, download images, check shards; see ``laion --help``."""


def _paper_later() -> None:
    """Draw the figures and tables of the paper; ``paper --help`` names them."""


def _features_later() -> None:
    """Look into layers: extract features, train dictionaries, explain latents, probe; see ``features --help``."""


def _chosen(arguments: list[str]) -> tuple[dict[str, Callable[..., Any]], str, str, list[str]]:
    """The commands to choose from, the program's name and description, and what is left of the arguments."""
    if arguments[:1] in (["laion"], ["paper"], ["features"]):
        group = import_module(f"bcos_diffusion.{arguments[0]}.command")
        return group.COMMANDS, f"{PROGRAM} {arguments[0]}", group.DESCRIPTION, arguments[1:]
    train = _train_command() if arguments[:1] == ["train"] else _train_later
    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "generate": generate,
        "explain": explain,
        "app": app,
        "evaluate": evaluate,
        "train": train,
        "data": data,
        "laion": _laion_later,
        "paper": _paper_later,
        "features": _features_later,
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
