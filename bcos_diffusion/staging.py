"""Write a folder of files so that it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; its files move to ``folder`` when the block ends well.

    Entering proves that ``folder`` can be written, so enter before long work. When the block fails
    nothing new is left behind, and files that ``folder`` had are untouched. Raises OSError naming
    ``folder``, never the temporary place.
    """
    folder = folder.absolute()
    anchor = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        if not anchor.is_dir():
            raise NotADirectoryError(f"{anchor} is not a folder")
        outer = Path(tempfile.mkdtemp(dir=anchor, prefix=".bcos-"))
    except OSError as error:
        raise OSError(f"cannot write into {folder}: {error.strerror or error}") from None
    inner = outer / "new"
    try:
        inner.mkdir()  # a second level, because mkdtemp makes folders that only their owner can read
        yield inner
        _publish(inner, folder)
    except OSError as error:
        raise OSError(_message(error).replace(str(inner), str(folder))) from None
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _publish(inner: Path, folder: Path) -> None:
    """Move a finished folder into place: in one step where there is none yet, else file by file."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(inner, folder)
        return
    blocked = [name for name in os.listdir(inner) if (folder / name).is_dir()]
    if blocked:
        raise OSError(f"cannot write {folder / blocked[0]}: it is a folder")
    for path in sorted(inner.iterdir()):
        os.replace(path, folder / path.name)


def _message(error: OSError) -> str:
    """What went wrong and where; an OSError of ours says so itself, one of the system has two fields."""
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
