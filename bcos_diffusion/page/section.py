"""What a page is made of: sections of text, tables, charts and pictures, before any of it is HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Mark = Literal["", "best", "close", "beaten", "reached", "missed", "unknown"]


@dataclass(frozen=True)
class Cell:
    """One value of a table. interval: in small type below it; mark: what it means among the others."""

    text: str
    interval: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under heads. The first cell of a row names it; text may stand for a cell without a mark.

    notes: sentences below the table; prose: whether cells are text, which begins at the left, and not numbers; folded:
    whether it is closed at first, as what says more of another table.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()
    prose: bool = False
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.heads):
                raise ValueError(f"a row of “{self.caption}” has {len(row)} cells under {len(self.heads)} heads")


@dataclass(frozen=True)
class Line:
    """A curve of a chart. style: the number of its colour, dashes and marker; value: said of it in the legend."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: int
    value: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves over one axis. x_range and y_range: ends of the axes; diagonal: also draw y = x, as what chance gives.

    x_names: what stands at x = 0, 1, … in the place of numbers.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    diagonal: str = ""
    text: str = ""
    x_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG. alt: what it shows, for those who do not see it; wide: whether it is a figure, as large as it is."""

    png: bytes
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Example:
    """One scene: pictures on top, then a grid of pictures with a name for each row and column.

    corner: what the names of the rows are.
    """

    title: str
    text: str
    pictures: tuple[Picture, ...]
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[Picture, ...]], ...] = ()
    corner: str = "word"


@dataclass(frozen=True)
class Sheet:
    """Examples that were chosen by one rule."""

    title: str
    text: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Section:
    """A part of the page. key: its anchor; text: paragraphs; missing: why it is empty, where it is."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    code: tuple[str, ...] = ()
    missing: str = ""
    children: tuple[Section, ...] = field(default=())
