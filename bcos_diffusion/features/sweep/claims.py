"""Each claim of Revelio, and ours, judged on the numbers of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bcos_diffusion.evaluation.page.results import Number, number
from bcos_diffusion.evaluation.statistics import bootstrap_spearman
from bcos_diffusion.features.sweep.field import TRANSFORMER, UNET
from bcos_diffusion.features.sweep.found import Found, Values
from bcos_diffusion.features.sweep.margins import AT_REFERENCE, baseline_row, margin
from bcos_diffusion.features.sweep.measure import OBJECT
from bcos_diffusion.features.sweep.measures import (
    DIFF_C,
    DIFF_C_FEW,
    JUDGED,
    SIGMA,
    TOP_SHARE,
    Measure,
    top_share,
)
from bcos_diffusion.features.sweep.plan import PIXELS, UNTRAINED
from bcos_diffusion.features.sweep.verdict import Claim, Leg

LEAST_CELLS = 5
EXPLAINED, ACTIVE = 0.8, 32
"""What is asked of an autoencoder: so much variance explained by so many active latents."""


def claims(found: Found) -> list[Claim]:
    """All claims, the paper's first. A claim about what is not in the sweep says so."""
    return [
        *_each(found, UNET, _peak, "peak", "Granularity peaks at a middle layer of the decoder,"
               " and falls at the last one", "Table 2a, Figure 4"),
        *_each(found, UNET, _coarsest, "bottleneck", "The bottleneck tells the least of fine classes",
               "Section 4.3, Figures 3-4"),
        *_each(found, UNET, _coarse, "coarse", "Of coarse classes the bottleneck is the purest layer",
               "Table 2a, Caltech-101 and ImageNet"),
        *_each(found, TRANSFORMER, _peak, "blocks", "The middle blocks of a transformer are its finest",
               "Table 2d, Table 13"),
        *_each(found, None, _smallest, "smallest", "The smallest timestep is the best", "Table 2b, Figures 6-7"),
        *_each(found, None, _largest, "largest", "A large timestep tells less than a small one",
               "Table 2b, Tables 6-8"),
        *_each(found, None, _targeted, "targeted", "A targeted prompt helps", "Table 9"),
        *_each(found, None, _generic, "generic", "A generic prompt hurts", "Table 9"),
        *_each(found, None, _agreement, "agreement", "Lower σ_label goes with higher accuracy of Diff-C",
               "Sections 4.3-4.5"),
        *_pairs(found, "families", "The best layer of a U-Net is finer than the best block of a transformer",
                "Section 4.5", lambda one, two: (found.family(one), found.family(two)) == (UNET, TRANSFORMER)),
        *_pairs(found, "forms", "B-cos features tell more than those of ordinary layers", "ours",
                lambda one, two: found.family(one) == found.family(two)
                and (found.form(one), found.form(two)) == ("B-cos", "ordinary")),
        *_each(found, None, _over(PIXELS), "pixels", "The best layer beats the noised pixels that it is given", "ours"),
        *_each(found, None, _over(UNTRAINED), "untrained", "The best layer beats the untrained network", "ours"),
        *_each(found, None, _explained, "explained",
               f"Autoencoders explain at least {EXPLAINED:.0%} of the variance with {ACTIVE} active latents", "ours"),
    ]  # fmt: skip


Judge = Callable[[Found, str], tuple[tuple[Leg, ...], str]]
"""The legs of a claim about one model, or why there are none."""


def _each(found: Found, family: str | None, judge: Judge, key: str, statement: str, source: str) -> list[Claim]:
    models = [label for label in found.models if family in (None, found.family(label))]
    if not models:
        return [Claim(key, statement, source, "", reason=f"no {family} is in the sweep")]
    return [Claim(key, statement, source, label, *judge(found, label)) for label in models]


def _peak(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    row = found.row(label)
    if len(row) < 3:
        return (), f"it needs three layers, {len(row)} were read"
    first, *between, last = row
    legs = []
    for measure in JUDGED:
        best = measure.best({layer: row[layer] for layer in between})
        if best is None:
            legs.append(_unknown(measure))
            continue
        gains = [measure.gain([row[best]], [row[end]]) for end in (first, last)]
        text = f"{_at(measure, best, row)}; better than {first} by {measure.show(gains[0])}," \
               f" than {last} by {measure.show(gains[1])}"  # fmt: skip
        legs.append(Leg(measure.name, text, tuple(gains)))
    return tuple(legs), ""


def _coarsest(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    row = found.row(label)
    others = [layer for layer in row if layer != "bottleneck"]
    if "bottleneck" not in row or not others:
        return (), "it needs the bottleneck and another layer"
    legs = []
    for measure in JUDGED:
        gains = [measure.gain([row[layer]], [row["bottleneck"]]) for layer in others]
        more = ", ".join(f"{layer} better by {measure.show(gain)}" for layer, gain in zip(others, gains, strict=True))
        legs.append(Leg(measure.name, f"{_at(measure, 'bottleneck', row)}; {more}", tuple(gains)))
    return tuple(legs), ""


def _coarse(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    row = found.row(label)
    others = {layer: cell for layer, cell in row.items() if layer != "bottleneck"}
    if "bottleneck" not in row or not others:
        return (), "it needs the bottleneck and another layer"
    legs = []
    for factor in found.factors:
        if factor == OBJECT:
            continue
        measure = top_share(factor)
        name = f"{measure.name}, {factor}"
        best = measure.best(others)
        if best is None:
            legs.append(Leg(name, "no latent is active on enough images", (number(None),)))
            continue
        gain = measure.gain([row["bottleneck"]], [row[best]])
        text = f"{_at(measure, 'bottleneck', row)}; better than {best}, the best of the others, by {measure.show(gain)}"
        legs.append(Leg(name, text, (gain,)))
    return tuple(legs), ""


def _smallest(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    first, *others = sorted(found.timesteps)
    if not others:
        return (), "one timestep was read"
    return tuple(_by_timestep(found, label, measure, first, others) for measure in JUDGED), ""


def _largest(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    first, *others = sorted(found.timesteps)
    if not others:
        return (), "one timestep was read"
    return tuple(_by_timestep(found, label, measure, first, others[-1:]) for measure in JUDGED), ""


def _by_timestep(found: Found, label: str, measure: Measure, first: int, others: Sequence[int]) -> Leg:
    """The first timestep against each of the others, over all layers."""
    row = list(found.row(label, first).values())
    gains = [measure.gain(row, list(found.row(label, t).values())) for t in others]
    told = ", ".join(f"than {t} by {measure.show(gain)}" for t, gain in zip(others, gains, strict=True))
    return Leg(measure.name, f"over all layers t = {first} is better {told}", tuple(gains))


def _targeted(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    return _by_prompt(found, label, "targeted", better=True)


def _generic(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    return _by_prompt(found, label, "generic", better=False)


def _by_prompt(found: Found, label: str, said: str, better: bool) -> tuple[tuple[Leg, ...], str]:
    empty, other = list(found.row(label, said="empty").values()), list(found.row(label, said=said).values())
    if not empty or not other:
        return (), f"its features were not read under {' and '.join(('empty', said))} prompts at the reference"
    same = [_said(cell) for cell in empty] == [_said(cell) for cell in other]
    legs = []
    for measure in JUDGED:
        gain = measure.gain(other, empty) if better else measure.gain(empty, other)
        one, two = (said, "empty") if better else ("empty", said)
        text = f"over all layers {one} is better than {two} by {measure.show(gain)}"
        if same:
            text = f"{one} and {two} are one to this model: every latent and every probe says the same"
        legs.append(Leg(measure.name, text, (gain,), same))
    return tuple(legs), ""


def _said(cell: Values) -> dict[str, Any]:
    """All that latents and probes say, which is equal to the last digit where features are."""
    return {name: cell.get(name) for name in ("purity", "monosemanticity", "linear", "diff_c", "few")}


def _agreement(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    legs = []
    for purity in (SIGMA, TOP_SHARE):
        for probe in (DIFF_C, DIFF_C_FEW):
            pairs = [(purity.better * purity.read(c).value, probe.read(c).value) for c in found.of(label)]
            known = [pair for pair in pairs if all(value == value for value in pair)]
            if len(known) >= LEAST_CELLS:
                rho = number(bootstrap_spearman(known))
                text = f"Spearman's ρ over {len(known)} cells {rho.both(1, 2)}"
                legs.append(Leg(f"{purity.name} and {probe.name}", text, (rho,)))
    return tuple(legs), "" if legs else f"it needs {LEAST_CELLS} cells with both numbers"


def _pairs(found: Found, key: str, statement: str, source: str, wanted: Callable[[str, str], bool]) -> list[Claim]:
    """A claim about two models: the best layer of the one against the best of the other, at the reference."""
    pairs = [(one, two) for one in found.models for two in found.models if one != two and wanted(one, two)]
    if not pairs:
        return [Claim(key, statement, source, "", reason="no two models of the sweep differ in this alone")]
    return [
        Claim(key, statement, source, f"{one} and {two}", tuple(_best_of(found, one, two, m) for m in JUDGED))
        for one, two in pairs
    ]


def _best_of(found: Found, one: str, two: str, measure: Measure) -> Leg:
    row, other = found.row(one), found.row(two)
    best, rival = measure.best(row), measure.best(other)
    if best is None or rival is None:
        return _unknown(measure)
    gain = measure.gain([row[best]], [other[rival]])
    text = f"{one} {_at(measure, best, row)}; {two} {_at(measure, rival, other)}; better by {measure.show(gain)}"
    return Leg(measure.name, text, (gain,))


def _over(baseline: str) -> Judge:
    """The best layer of a model against a baseline at the reference: its best layer, or the pixels."""

    def judge(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
        if not baseline_row(found, baseline):
            return (), "the sweep has no such baseline"
        legs = []
        for measure in AT_REFERENCE:
            known = margin(found, label, baseline, measure)
            if known is None:
                legs.append(_unknown(measure))
                continue
            text = f"{known.layer} {measure.show(known.own)}; {known.rival} {measure.show(known.theirs)};" \
                   f" better by {measure.show(known.gain)}"  # fmt: skip
            legs.append(Leg(measure.name, text, (known.gain,)))
        return tuple(legs), ""

    return judge


def _explained(found: Found, label: str) -> tuple[tuple[Leg, ...], str]:
    """Every autoencoder of a model: by how much the worst is above the target. It is of one
    dictionary each, so there is no interval."""
    cells = [cell for cell in found.of(label) if "sae" in cell]
    if not cells:
        return (), "no autoencoder was trained"
    if cells[0]["sae"]["l0"] > ACTIVE + 1e-6:
        return (), f"autoencoders have {cells[0]['sae']['l0']:g} active latents"
    worst = min(cells, key=lambda cell: cell["sae"]["explained_variance"])
    value = worst["sae"]["explained_variance"]
    text = f"the least of {len(cells)} is {value:.1%}: {worst['layer']} at t = {worst['t']}, {worst['conditioning']}"
    return (Leg("explained variance", text, (Number(value - EXPLAINED, value - EXPLAINED, value - EXPLAINED),)),), ""


def _unknown(measure: Measure) -> Leg:
    """Something was measured, but a mean over no latents is no number."""
    return Leg(measure.name, "no latent is active on enough images that have a label", (number(None),))


def _at(measure: Measure, layer: str, row: dict[str, Values]) -> str:
    return f"{layer} {measure.show(measure.read(row[layer]))}"
