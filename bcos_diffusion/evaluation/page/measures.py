"""The measures by their keys in results: names, directions, formulas. Tables and the glossary both read them here."""

from __future__ import annotations

from dataclasses import dataclass

from bcos_diffusion.baselines.methods import by_name

OURS = "exact"
OUR_EFFECT = "value_gradient"
"""Our method of what would change, as :data:`OURS` is that of what is there."""
ORACLE = "leave_one_out"
RIVAL = "daam"
TWIN = "_twin"
"""How the names of methods end that explain the ordinary twin, another network."""

METHODS = {name: method.label for name, method in by_name().items()} | {
    OURS: "exact contributions (ours)",
    OUR_EFFECT: "value × gradient (ours)",
}
"""Methods by key, in the order of tables."""


def label(method: str) -> str:
    """How tables call a method."""
    if method.endswith(TWIN):
        return f"{label(method.removesuffix(TWIN)).removesuffix(' (ours)')}, ordinary twin"
    return METHODS.get(method, method.replace("_", " "))


@dataclass(frozen=True)
class Measure:
    """What a column says. scale: by which values are multiplied; higher: whether more is better; formula: in words
    and signs of a map m(p) over pixels p and a true mask M."""

    key: str
    label: str
    formula: str
    meaning: str
    higher: bool = True
    scale: float = 100.0
    digits: int = 1

    @property
    def head(self) -> str:
        """The head of a column, with unit and direction."""
        unit = ", %" if self.scale == 100 else ""
        return f"{self.label}{unit}\N{NO-BREAK SPACE}{'↑' if self.higher else '↓'}"


_LOCALISATION = (
    Measure("ap", "pixel AP", "Σₙ (Rₙ − Rₙ₋₁) Pₙ over the distinct values of m, pixels ranked by m",
            "Area under the precision-recall curve of a mask's pixels. Needs no threshold."),
    Measure("miou", "mIoU", "|{m ≥ τ·max m} ∩ M| / |{m ≥ τ·max m} ∪ M|, mean over words; τ chosen on validation scenes",
            "Overlap of the cut map and the true mask, at the threshold that suits the method best."),
    Measure("miou_04", "mIoU at 0.4", "the same with τ = 0.4", "DAAM's own threshold for every method."),
    Measure("pointing", "pointing game", "share of words with argmax m ∈ M",
            "Whether the strongest pixel lies on the object."),
    Measure("mass_inside", "mass inside", "Σ_{p∈M} m⁺(p) / Σ_p m⁺(p), with m⁺ the positive part",
            "How much of an object word's map lies on its object."),
    Measure("leakage", "leakage", "Σ_{p∈others} m⁺(p) / Σ_p m⁺(p), others: the masks of all other objects",
            "How much of it lies on other objects.", higher=False),
    Measure("colour_mass", "colour mass", "the mass inside of a colour word's map, M: what no object covers",
            "Whether a background's colour is attributed to the background."),
    Measure("function_mass", "mass of function words", "Σ of m⁺ over articles, prepositions and words of place"
            " / Σ over all words", "Words that draw nothing should get nothing.", higher=False),
    Measure("mask_ap", "AP of masks", "average precision of the masks {m ≥ τ·max m} over IoU thresholds 0.50 … 0.95,"
            " mean over τ ∈ {0.3, 0.4, 0.5}", "The score that DAAM's paper names, with its matching."),
    Measure("largest", "own word largest", "share of M with Σ_{p∈M} m(p) larger than that of every other word",
            "Is an object's region attributed to its own word before any other?"),
)  # fmt: skip
_FAITHFULNESS = (
    Measure("spearman_token", "Spearman by word", "ρ(score_i, ‖x̂(c) − x̂(c without i)‖₂) over the words i of a prompt",
            "Does a word's score rank how much the picture changes without it?", scale=1, digits=2),
    Measure("spearman_pixel", "Spearman by pixel", "ρ(|m_i(p)|, |x̂(c) − x̂(c without i)|(p)) over pixels p, mean over"
            " words", "Does a word's map rank where the picture changes without it?", scale=1, digits=2),
    Measure("deletion", "deletion", "area under 1 − d/d₀ while words are taken out, the highest score first; d is the"
            " distance to the picture of the whole prompt, d₀ that without any word",
            "Taking out what matters first changes the picture early.", higher=False, scale=1, digits=3),
    Measure("insertion", "insertion", "the same area while words are put in, the highest score first",
            "Putting in what matters first restores the picture early.", scale=1, digits=3),
    Measure("infidelity", "infidelity", "E[Σ_S (β Σ_{i∈S} score_i − ‖x̂(c) − x̂(c without S)‖)² / Σ_S ‖…‖²] over sets S"
            " of words, at the method's best scale β", "Relative squared error of the change that scores predict: 1 for"
            " a method that predicts nothing (Yeh et al., 2019).", higher=False, scale=1, digits=3),
)  # fmt: skip
LOCALISATION = {measure.key: measure for measure in _LOCALISATION}
MASK_AP = {
    f"mask_ap_{tau:02d}": Measure(f"mask_ap_{tau:02d}", f"AP of masks, τ = {tau / 10:g}", "", "") for tau in (3, 4, 5)
}
"""The parts of ``mask_ap``, a threshold each."""
FAITHFULNESS = {measure.key: measure for measure in _FAITHFULNESS}
EDITS = {"drop": "the word is hidden", "null": "its embedding is the null token's", "swap": "another word stands there"}
"""Ways to take a word away."""
