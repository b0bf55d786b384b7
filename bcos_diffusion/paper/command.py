"""``bcos-diffusion paper NAME``: the arguments of every figure and table; each is drawn by the file of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.paper.models import ManySampling
from bcos_diffusion.paper.reconstruction import PROMPT

DESCRIPTION = "Figures and tables of the paper, for any model; without arguments, for the one in the package."
Sampled = Annotated[Sampling, tyro.conf.arg(name="")]
SampledByMany = Annotated[ManySampling, tyro.conf.arg(name="")]


def samples(
    prompts: tyro.conf.Positional[tuple[str, ...]] = (),
    sampling: SampledByMany = ManySampling(),
    count: int = 2,
    out: Path = Path("bcos-paper-samples"),
) -> None:
    """Figure 1: a grid of prompts and models, all from the same noise.

    Args:
        prompts: What to draw, each in quotes; six test prompts of scenes if not given.
        count: Pictures per prompt and model, from seeds seed, seed + 1, …
        out: Folder to write into.
    """
    from bcos_diffusion.paper.samples import run

    run(sampling, prompts, count, out)
    _say(out, "samples")


def reconstruction(
    prompt: tyro.conf.Positional[str] = PROMPT,
    sampling: Sampled = Sampling(),
    count: int = 0,
    out: Path = Path("bcos-paper-reconstruction"),
) -> None:
    """Figure 2: a sample beside what its tokens alone reconstruct (Eq. 6, 7), and the relevance of each (Eq. 8).

    Args:
        prompt: What to draw, in quotes.
        count: Test prompts of scenes over which the error is measured besides.
        out: Folder to write into.
    """
    from bcos_diffusion.paper.reconstruction import run

    print(run(sampling, prompt, count, out))
    _say(out, "reconstruction")


def failure(
    prompts: tyro.conf.Positional[tuple[str, ...]] = (),
    sampling: Sampled = Sampling(),
    count: int = 60,
    out: Path = Path("bcos-paper-failure"),
) -> None:
    """Figure 3: pictures that lack an object they name, and whether its word's relevance tells (scenes alone).

    Args:
        prompts: What to draw, each in quotes; random prompts of two or three objects if not given.
        count: Pictures of every prompt; of random prompts, one each.
        out: Folder to write into.
    """
    from bcos_diffusion.paper.failure import run

    print(run(sampling, prompts, count, out))
    _say(out, "failure")


def epsilon(
    prompt: tyro.conf.Positional[str] = PROMPT, sampling: Sampled = Sampling(), out: Path = Path("bcos-paper-epsilon")
) -> None:
    """Figure 5: reconstruction of a model that predicts noise, without and with x_T's part, and special tokens' shares.

    Args:
        prompt: What to draw, in quotes.
        out: Folder to write into.
    """
    from bcos_diffusion.paper.epsilon import run

    print(run(sampling, prompt, out))
    _say(out, "epsilon")


def edits(
    prompts: tyro.conf.Positional[tuple[str, ...]] = (),
    sampling: Sampled = Sampling(),
    count: int = 8,
    out: Path = Path("bcos-paper-edits"),
) -> None:
    """Figure 6: one seed, prompts that differ in a word: does the picture change as much as the word was relevant?

    Args:
        prompts: The prompt that is edited, then its edits, each in quotes.
        count: Random prompts of scenes, each edited four ways, over which the agreement is measured besides.
        out: Folder to write into.
    """
    from bcos_diffusion.paper.edits import run

    print(run(sampling, prompts, count, out))
    _say(out, "edits")


def tokens(
    sampling: Sampled = Sampling(),
    captions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    column: str = "caption",
    count: int = 2000,
    minimum: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    batch_size: int = 64,
    out: Path = Path("bcos-paper-tokens"),
) -> None:
    """Tables 1 and 2: mean relevance and occurrences of every token over a corpus; run again to go on where it was cut.

    Args:
        captions: File of captions: .txt, a line each; .json, .jsonl or .parquet. Without it, training scenes.
        column: The field that holds the caption, in .json, .jsonl and .parquet.
        count: How many captions, from the first on; the paper has 100000.
        minimum: Least occurrences of a token in the table; one in a thousand captions if not given.
        batch_size: Captions at once. With --steps, and for captions without pictures, each is a whole run instead.
        out: Folder to write into.
    """
    from bcos_diffusion.paper.tokens import run

    print(run(sampling, captions, column, count, minimum, batch_size, out))
    _say(out, "tokens")


def quality(
    sampling: SampledByMany = ManySampling(),
    reference: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    captions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    column: str = "caption",
    inception: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    count: int = 200,
    batch_size: int = 16,
    out: Path = Path("bcos-paper-quality"),
) -> None:
    """Fréchet and kernel distance of every model's samples to real pictures; run again to go on where it was cut.

    Args:
        reference: Folder of real pictures; test scenes if not given.
        captions: File of captions to draw: .txt, a line each; .json, .jsonl, .parquet. Without it, of test scenes.
        column: The field that holds the caption, in .json, .jsonl and .parquet.
        inception: The weights that torch-fidelity calls weights-inception-2015-12-05-6726825d.pth, for an FID.
            Without them the features are those of a small fixed network, and the result is no FID.
        count: Pictures of every model, and of the reference; the paper has 100000.
        batch_size: Pictures drawn at once.
        out: Folder to write into; the pictures lie in its folder samples.
    """
    from bcos_diffusion.paper.quality import run

    print(run(sampling, reference, captions, column, inception, count, batch_size, out))
    _say(out, "quality")


def _say(out: Path, name: str) -> None:
    print(f"\n{out / f'{name}.png'} shows it, {out / f'{name}.json'} has the numbers")


COMMANDS: dict[str, Callable[..., Any]] = {
    "samples": samples,
    "reconstruction": reconstruction,
    "failure": failure,
    "epsilon": epsilon,
    "edits": edits,
    "tokens": tokens,
    "quality": quality,
}
