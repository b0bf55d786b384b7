"""``bcos-diffusion paper NAME``: the arguments of every figure and table; each is drawn by the file of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from bcos_diffusion.sampling import Sampling

DESCRIPTION = "Figures and tables of the paper, for any model; without arguments, for the one in the package."
Sampled = Annotated[Sampling, tyro.conf.arg(name="")]


def tokens(
    sampling: Sampled = Sampling(),
    captions: Path | None = None,
    column: str = "caption",
    count: int = 2000,
    minimum: int | None = None,
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


def _say(out: Path, name: str) -> None:
    print(f"\n{out / f'{name}.png'} shows it, {out / f'{name}.json'} has the numbers")


COMMANDS: dict[str, Callable[..., Any]] = {
    "tokens": tokens,
}
