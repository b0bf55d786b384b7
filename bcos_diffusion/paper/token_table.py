"""Mean relevance of every token over a corpus (Tables 1 and 2), from the masses that shards hold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.statistics import bootstrap, mean, spearman
from bcos_diffusion.evaluation.words import group
from bcos_diffusion.paper.token_masses import Shard
from bcos_diffusion.text import END, PADDING, START
from bcos_diffusion.text.function_words import NUMERALS

SPECIAL = frozenset({"", START, END, PADDING})
"""Words of tokens that are no part of the prompt, but of the layout that a text encoder reads it in."""
KINDS = ("object", "colour", "number", "relation", "function", "punctuation", "special", "other")


def kind(word: str) -> str:
    """The part of speech of a word by the lexicon of scenes; "special" for one that the prompt does not have."""
    if word in SPECIAL:
        return "special"
    if not word[0].isalnum():
        return "punctuation"
    return "number" if word in NUMERALS or word.isdigit() else group(word)


@dataclass(frozen=True)
class Row:
    """A token. occurrences: captions in which it stands once; relevances: their means, with a standard error."""

    token: str
    kind: str
    occurrences: int
    signed: float
    absolute: float
    signed_error: float

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Shares:
    """Every token that stands once in its caption, flat: its text, its word's kind and its shares (Eq. 8)."""

    token: NDArray[np.str_]
    kind: NDArray[np.str_]
    signed: NDArray[np.float64]
    absolute: NDArray[np.float64]


def shares_of(shard: Shard) -> Shares:
    """Shares of each caption's mass; a token that stands twice in a caption is left out of that caption."""
    _, caption = np.unique(shard.caption, return_inverse=True)
    names, token = np.unique(shard.token, return_inverse=True)
    signed = np.bincount(caption, shard.mass).astype(np.float64)
    absolute = np.bincount(caption, np.abs(shard.mass)).astype(np.float64)
    _, place, times = np.unique(caption * len(names) + token, return_inverse=True, return_counts=True)
    once = times[place] == 1
    kinds = np.array([kind(word) for word in shard.word.tolist()], np.str_)
    return Shares(
        shard.token[once],
        kinds[once],
        _share(shard.mass, signed[caption])[once],
        _share(np.abs(shard.mass), absolute[caption])[once],
    )


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def rows(shards: Iterable[Shard], minimum: int) -> list[Row]:
    """A row per token of at least ``minimum`` occurrences, the largest mean absolute relevance first."""
    signed: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    absolute: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for shard in shards:
        shares = shares_of(shard)
        order = np.argsort(shares.token, kind="stable")
        names, starts = np.unique(shares.token[order], return_index=True)
        for name, places in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
            signed[name].append(shares.signed[places])
            absolute[name].append(shares.absolute[places])
            for found in shares.kind[places].tolist():
                kinds[name][found] += 1
    table = [_row(name, kinds[name], np.concatenate(signed[name]), np.concatenate(absolute[name])) for name in signed]
    return sorted((row for row in table if row.occurrences >= minimum), key=lambda row: (-row.absolute, row.token))


def _row(token: str, kinds: dict[str, int], signed: NDArray[np.float64], absolute: NDArray[np.float64]) -> Row:
    most = max(kinds, key=lambda name: (kinds[name], name))
    error = float(signed.std(ddof=1)) / math.sqrt(len(signed)) if len(signed) > 1 else math.nan
    return Row(token, most, len(signed), float(signed.mean()), float(absolute.mean()), error)


def pearson(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's correlation of pairs; NaN where either side does not vary."""
    x, y = np.asarray(pairs, np.float64).T
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def correlations(table: list[Row]) -> dict[str, Any]:
    """Do frequent tokens have more relevance? Over all tokens, over those that contribute, and over objects."""
    chosen = {
        "all_tokens": table,
        "tokens_that_contribute": [row for row in table if row.absolute > 0],
        "objects": [row for row in table if row.kind == "object"],
    }
    found: dict[str, Any] = {}
    for name, kept in chosen.items():
        found[name] = {"tokens": len(kept)}
        for measure in ("signed", "absolute"):
            pairs = [(float(row.occurrences), float(getattr(row, measure))) for row in kept]
            ranked = spearman([x for x, _ in pairs], [y for _, y in pairs]) if pairs else math.nan
            found[name][measure] = {"pearson": bootstrap(pairs, pearson), "spearman": ranked}
    return found


def by_kind(table: list[Row]) -> list[dict[str, Any]]:
    """Means over the tokens of each kind, with an interval over tokens."""
    groups = ((name, [row for row in table if row.kind == name]) for name in KINDS)
    return [
        {
            "kind": name,
            "tokens": len(found),
            "occurrences": sum(row.occurrences for row in found),
            "signed": bootstrap([row.signed for row in found], mean),
            "absolute": bootstrap([row.absolute for row in found], mean),
        }
        for name, found in groups
        if found
    ]
