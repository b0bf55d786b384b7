"""A progress bar where somebody may watch it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(total: int, unit: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on an interactive terminal, nothing elsewhere or when quiet; yields a function that moves it on by one."""
    with tqdm(total=total, unit=unit, disable=True if quiet else None, leave=False) as bar:
        yield lambda *_: bar.update()  # type: ignore[misc]
