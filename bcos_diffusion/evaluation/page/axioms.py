"""What must hold of exact explanations, where the mass of pictures comes from, and what methods cost."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.measures import label
from bcos_diffusion.evaluation.page.results import number_at, part
from bcos_diffusion.evaluation.words import GROUPS
from bcos_diffusion.page.section import Section, Table

AXIOMS = {
    "completeness": "completeness error: what contributions leave out of the image",
    "mass_of_function_words": "largest contribution of a function word",
    "masked_token": "largest contribution of a masked token",
    "jvp_vjp": "difference of forward and backward contributions",
    "same_output": "difference of images with explanation mode on and off",
    "max_sensitivity": "max-sensitivity",
    "randomisation": "similarity of maps after weights are randomised",
}
BUDGET = {"tokens": "words", "x_T": "the initial noise x_T", "time": "time", "other": "other"}
REGIMES = {"regime_a": "real scenes, one step, all noise levels", "regime_b": "drawn pictures, whole runs"}


def section(result: Any) -> Section:
    """The tables of axioms, of the budget and of seconds."""
    axioms, shares = part(result, "axioms") or {}, part(result, "budget") or {}
    tables = []
    if axioms:
        rows = tuple((AXIOMS.get(name, name.replace("_", " ")), _exact(axioms, name)) for name in axioms)
        tables.append(Table("Axioms: the worst case over all pictures", ("what", "measured"), rows))
    if known := [(label, number_at(shares, key).both(100, 2)) for key, label in BUDGET.items() if key in shares]:
        tables.append(Table("Budget: shares of the mass of drawn pictures", ("origin", "share, %"), tuple(known)))
    tables += _kinds(part(result, "mass") or {})
    tables += _seconds(part(result, "timing") or {})
    missing = "" if axioms or shares else "this part was not run"
    text = "The tests of the package check more of these properties, on every layer; here is what this run saw of them."
    return Section("axioms", "Axioms, budget and cost", (text,) if axioms else (), tuple(tables), missing=missing)


def _kinds(mass: Any) -> list[Table]:
    """How much words of each kind carry, and what dropping them changes."""
    kinds = [name for name in GROUPS if number_at(mass, name, "words").value > 0]
    rows = tuple(
        (name, number_at(mass, name, "words").text(1, 0), number_at(mass, name, "share_per_word").both(100, 1),
         number_at(mass, name, "effect_per_word").both(1, 2))
        for name in kinds
    )  # fmt: skip
    heads = ("kind of word", "words", "share of the mass, %", "effect of dropping it")
    return [Table("Words of drawn pictures by kind, means over words", heads, rows)] if rows else []


def _exact(axioms: Any, name: str) -> str:
    """Small numbers keep their size, and 0 is exactly 0."""
    found = number_at(axioms, name)
    if not found.known:
        return "undefined"
    return "0" if found.value == 0 else f"{found.value:.1e} {found.interval(1, 4)}".replace("-", "−").strip()


def _seconds(timing: Any) -> list[Table]:
    regimes = [name for name in REGIMES if timing.get(name)]
    methods = list(dict.fromkeys(method for name in regimes for method in timing[name]))
    if not methods:
        return []

    def cell(name: str, method: str) -> str:
        return number_at(timing, name, method, "seconds").text(1, 2) if method in timing[name] else "–"

    rows = tuple((label(method), *(cell(name, method) for name in regimes)) for method in methods)
    return [Table("Seconds a picture, of one core or one GPU", ("method", *(REGIMES[n] for n in regimes)), rows)]
