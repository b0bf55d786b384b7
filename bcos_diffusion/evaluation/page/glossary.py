"""What the measures mean, with their formulas."""

from __future__ import annotations

from bcos_diffusion.evaluation.page.measures import EDITS, FAITHFULNESS, LOCALISATION, Measure
from bcos_diffusion.page.section import Section

NOTATION = (
    "m(p) is a method's map of a word at pixel p, m⁺ its positive part, M the word's true region; x̂(c) is what the"
    " network predicts for the prompt c. ↑ more is better, ↓ less is. Values are means over all words of a kind in all"
    " scenes; brackets hold the 95% percentile interval of 1,000 bootstrap resamples over scenes."
)
OTHERS = (
    ("AUROC", "∫ TPR d FPR. How often the score of a drawn word is above that of a missing one; 0.5 is chance."),
    ("AUPRC", "Σₙ (Rₙ − Rₙ₋₁) Pₙ of finding the missing words; chance is their share."),
    ("FPR at 95% TPR", "The share of drawn words that are called missing where 95% of the missing ones are found."),
    ("calibration error", "Σ_b |words in bin b| / |words| · |mean probability − share drawn|, ten bins."),
    ("Fréchet distance", "‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of features of a fixed network. It is an FID only where"
     " the features are Inception's."),
    ("kernel distance", "Squared maximum mean discrepancy with the kernel (x·y/d + 1)³ on the same features."),
    ("completeness error", "‖image − Σ contributions‖ / ‖image‖. What exact explanations leave out."),
)  # fmt: skip


def section() -> Section:
    """Every measure of the page by name."""
    terms = [(measure.head, _said(measure)) for measure in (*LOCALISATION.values(), *FAITHFULNESS.values())]
    removals = "; ".join(f"{name}: {meaning}" for name, meaning in EDITS.items())
    return Section(
        "glossary", "Measures", (NOTATION,), terms=(*terms, ("ways to take a word away", f"{removals}."), *OTHERS)
    )


def _said(measure: Measure) -> str:
    return f"{measure.formula}. {measure.meaning}"
