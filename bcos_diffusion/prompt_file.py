"""Files of prompts to draw: one a line, as text, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEYS = ("prompt", "negative_prompt", "seed")
_SHOWN = 5


@dataclass(frozen=True)
class Item:
    """One picture to draw. number: its place among the pictures, from 0; line: of the file, from 1."""

    number: int
    line: int
    prompt: str
    negative_prompt: str | None
    seed: int

    @property
    def name(self) -> str:
        """What its file or folder is called."""
        return f"{self.number:06d}-{slug(self.prompt)}-seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def slug(prompt: str) -> str:
    """A prompt as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]


def read_prompts(
    path: Path, seed: int, negative_prompt: str | None, check: Callable[[str, str | None], object]
) -> list[Item]:
    """Read a file of prompts: ``.txt`` (a prompt a line), ``.csv`` (columns prompt, negative_prompt, seed, of which
    the first is needed) or ``.jsonl`` (objects with these keys). Empty lines are skipped.

    A line without a seed is drawn from ``seed`` plus its number among the prompts, so that lines differ; one without a
    negative prompt has ``negative_prompt``. check: called with every prompt and its negative, a ValueError is a bad
    line. Raises FileNotFoundError, or one ValueError that names the first bad lines by number.
    """
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path} is not a file of prompts: its name must end in {', '.join(_READERS)}")
    records, parse = _READERS[path.suffix.lower()]
    items: list[Item] = []
    wrong: list[str] = []
    try:
        for line, record in records(path):
            try:
                given = _checked(parse(record))
                negative = given.get("negative_prompt") or negative_prompt
                check(given["prompt"], negative)
                own_seed = seed + len(items) if given["seed"] is None else given["seed"]
                items.append(Item(len(items), line, given["prompt"], negative, own_seed))
            except ValueError as error:
                wrong.append(f"line {line}: {error}")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from None
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(f"{path} has {len(wrong)} bad line(s), nothing was drawn: {'; '.join(wrong[:_SHOWN])}{more}")
    if not items:
        raise ValueError(f"{path} has no prompts")
    return items


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip()


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="cells without a column (quote text that has commas)", strict=True)
        if "prompt" not in (reader.fieldnames or []):
            raise ValueError(f"{path} must begin with a line that names its columns, one of them prompt")
        for row in reader:
            if any(row.values()):
                yield reader.line_num, {name: cell for name, cell in row.items() if cell}


def _prompt_alone(line: str) -> dict[str, str]:
    return {"prompt": line}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None


_Reader = Callable[[Path], Iterator[tuple[int, Any]]]
_READERS: dict[str, tuple[_Reader, Callable[[Any], Any]]] = {
    ".txt": (_lines, _prompt_alone),
    ".csv": (_rows, dict),
    ".jsonl": (_lines, _parsed),
}
"""By the end of a file's name: its records with their lines, and how one is read."""


def _checked(values: Any) -> dict[str, Any]:
    """The values of one line with the right types; ValueError says what is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"must be an object with the key prompt, got {type(values).__name__}")
    if unknown := [str(key) for key in values if key not in KEYS]:
        raise ValueError(f"unknown {', '.join(unknown)}; accepted: {', '.join(KEYS)}")
    for key in ("prompt", "negative_prompt"):
        if values.get(key) is not None and not isinstance(values[key], str):
            raise ValueError(f"{key} must be text, got {values[key]!r}")
    if not (values.get("prompt") or "").strip():
        raise ValueError("the prompt is empty")
    return values | {"seed": _seed(values.get("seed"))}


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    text = str(value).strip()
    if isinstance(value, bool | float) or not text.isdecimal() or int(text) >= 2**63:
        raise ValueError(f"seed must be a whole number in [0, 2^63), got {value!r}")
    return int(text)
