"""Draw or explain a file of prompts: by any number of processes, to disk as they are done, and again after a stop.

Pictures are drawn in batches of one shape, cut from the file in its order: picture k is in batch k // size, whatever
the number of processes, and after a stop. A batch belongs to process ``number % world``. So a picture does not depend
on how many draw, and nobody needs to ask the others anything: what is on disk is what is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.prompt_file import Item
from bcos_kernels.files import read_json, write_atomically, write_json

SETTINGS, PROMPTS, INDEX, UNFINISHED = "settings.json", "prompts.jsonl", "index.jsonl", ".unfinished"

Save = Callable[[int, Path], dict[str, Any]]
"""Writes the picture at a place of the batch into an empty folder, ``save(place, folder)``, with ``image.png`` among
its files; returns what the index says of it beyond its item."""


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's: ``rank`` of ``world``."""

    rank: int = 0
    world: int = 1


class Collection:
    """A folder of pictures that grows: each is there whole or not at all.

    A picture is ``NUMBER-PROMPT-seedSEED.png``, or with ``folders`` a folder of that name with several files and
    ``item.json``, its line of the index.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], items: Sequence[Item], folders: bool):
        """Begin, or go on with, the collection in ``out``.

        Raises ValueError, saying what differs, where ``out`` holds another; OSError where it cannot be written.
        """
        self.out, self.items, self.folders = out, items, folders
        lines = [json.dumps(item.to_dict(), ensure_ascii=False) + "\n" for item in items]
        _agree_on(out / PROMPTS, "".join(lines), lambda path: _differing_line(path, lines))
        agree_on_settings(out, settings)

    def path(self, item: Item) -> Path:
        """Where a picture is once it is done."""
        return self.out / (item.name if self.folders else f"{item.name}.png")

    def has(self, item: Item) -> bool:
        """Whether a picture is done."""
        return self.path(item).exists()

    def add(self, item: Item, save: Callable[[Path], dict[str, Any]]) -> None:
        """Let ``save`` write a picture's files into an empty folder; they appear when it returns their index line."""
        folder, path = self.out / UNFINISHED / item.name, self.path(item)
        try:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
            folder.mkdir(parents=True)
            line = item.to_dict() | save(folder)
            if self.folders:
                write_json(folder / "item.json", line | {"file": path.name})
            os.replace(folder if self.folders else folder / "image.png", path)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            raise OSError(f"cannot write {path}: {reason.replace(str(folder), str(path))}") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def finish(self) -> bool:
        """Write the index if every picture is done; any process may, they all write the same."""
        if not all(map(self.has, self.items)):
            return False
        text = "".join(json.dumps(self._line(i), sort_keys=True, ensure_ascii=False) + "\n" for i in self.items)
        write_atomically(self.out / INDEX, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        shutil.rmtree(self.out / UNFINISHED, ignore_errors=True)
        return True

    def _line(self, item: Item) -> dict[str, Any]:
        path = self.path(item)
        return dict(read_json(path / "item.json")) if self.folders else item.to_dict() | {"file": path.name}


def draw_all(
    collection: Collection, share: Share, batch: int, draw: Callable[[list[Item]], Save], advance: Callable[[], object]
) -> int:
    """Draw what is missing of this process's share; returns how many pictures that was.

    draw: draws ``batch`` items at once and returns what saves them; the last batch is filled up with its own last item,
    so that all have one shape. advance: called after every batch.
    """
    items, new = collection.items, 0
    for number in range(share.rank, -(-len(items) // batch), share.world):
        mine = list(items[number * batch : (number + 1) * batch])
        missing = [place for place, item in enumerate(mine) if not collection.has(item)]
        if missing:
            save = draw(mine + [mine[-1]] * (batch - len(mine)))
        for place in missing:
            collection.add(mine[place], partial(save, place))
            new += 1
        advance()
    return new


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights, by name: what "the same model" means."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor_digest(value).encode())
    return digest.hexdigest()


def tensor_digest(values: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


def agree_on_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Write down what everything in a folder depends on; of several processes the first one writes.

    Raises ValueError, saying what differs, for a folder that was begun with other settings; OSError where it cannot be
    written.
    """
    text = json.dumps(dict(settings), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    _agree_on(out / SETTINGS, text, lambda path: _differing_settings(path, settings))


def _agree_on(path: Path, text: str, difference: Callable[[Path], str]) -> None:
    """Write ``path`` if nobody has; else it must hold the same text. Of several processes the first one writes."""
    own = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write into {path.parent}: {error.strerror or error}") from None
    try:
        own.write_text(text, encoding="utf-8")
        try:
            os.link(own, path)
            return
        except FileExistsError:
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        own.unlink(missing_ok=True)
    if path.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{path.parent} was begun with other settings: {difference(path)}; choose another --out, or remove it"
        )


def _differing_settings(path: Path, settings: Mapping[str, Any]) -> str:
    before, now = _leaves(read_json(path)), _leaves(json.loads(json.dumps(dict(settings))))
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in names)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path, so that a difference is told without all that is around it."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _differing_line(path: Path, lines: Sequence[str]) -> str:
    before = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if len(before) != len(lines):
        return f"its file had {len(before)} prompts, this one has {len(lines)}"
    first = next(i for i, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new)
    old, new = json.loads(before[first]), json.loads(lines[first])
    names = [name for name in new if old.get(name) != new[name]]
    return f"prompt {first + 1}: " + ", ".join(f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in names)
