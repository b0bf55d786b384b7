"""The top of the page: each claim of the paper beside what holds here."""

from __future__ import annotations

from collections.abc import Sequence

from bcos_diffusion.features.sweep.verdict import FAILS, HOLDS, OPEN, UNMEASURED, Claim, Verdict
from bcos_diffusion.page.section import Cell, Mark, Section, Table

MARKS: dict[Verdict, Mark] = {HOLDS: "reached", FAILS: "missed", OPEN: "", UNMEASURED: "unknown"}


def lead(claims: Sequence[Claim]) -> list[str]:
    """The first sentences: how many claims hold, which do not."""
    by = {verdict: [c for c in claims if c.verdict == verdict] for verdict in MARKS}
    counts = ", ".join(f"{verdict} {len(found)}" for verdict, found in by.items())
    sentences = [f"{len(claims)} claims about models and pairs of models were judged: {counts}."]
    if by[FAILS]:
        told = "; ".join(f"{claim.statement} ({claim.subject})" for claim in by[FAILS])
        sentences.append(f"What does not hold here: {told}.")
    return sentences


def section(claims: Sequence[Claim]) -> Section:
    """Every claim with its verdict and numbers."""
    return Section(
        "claims",
        "Claims",
        (
            "Each claim is judged by four measures: σ_label and the accuracy of Diff-C, as in the paper, and two beside"
            " them: the share of one class among a latent's top images, which does not depend on how classes are"
            " numbered as σ_label does, and Diff-C of a few images a class, since with all of them it may be at its"
            " ceiling. A measure says that a claim holds where the 95% intervals of all differences that it is about"
            " are above 0, and that it does not where one is below 0. A claim holds where some measure says so"
            " and none the contrary; where measures contradict each other, or none says anything, it cannot be told.",
            "Differences of accuracies are paired over test images. Those of latents are over latents, as if these were"
            " independent, which flatters them. A best layer is chosen on the images that it is judged on, and no"
            " interval is widened for the number of comparisons.",
        ),
        tables=(
            Table("What holds", ("claim", "from", "model", "verdict", "numbers"), tuple(map(_row, claims)), prose=True),
            Table("The same by measure", ("claim", "model", "measure", "verdict", "numbers, 95% intervals"),
                  tuple(row for claim in claims for row in _legs(claim)), prose=True, folded=True),
        ),
    )  # fmt: skip


def _row(claim: Claim) -> tuple[Cell | str, ...]:
    verdict = claim.verdict
    deciding = [leg for leg in claim.legs if leg.verdict == verdict] or list(claim.legs)
    text = claim.reason
    if claim.legs:
        said = f"{deciding[0].measure}: {deciding[0].text}"
        tally = ", ".join(f"{leg.measure} – {leg.verdict}" for leg in claim.legs)
        text = f"{said}. All measures: {tally}." if len(claim.legs) > 1 else f"{said}."
        if claim.contradicted:
            text = f"Measures contradict each other: {tally}."
    return claim.statement, claim.source, claim.subject or "none", Cell(verdict, mark=MARKS[verdict]), text


def _legs(claim: Claim) -> list[tuple[Cell | str, ...]]:
    return [
        (claim.statement, claim.subject, leg.measure, Cell(leg.verdict, mark=MARKS[leg.verdict]), leg.text)
        for leg in claim.legs
    ]
