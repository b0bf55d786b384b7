"""From gains with their intervals to a verdict: no verdict is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bcos_diffusion.evaluation.page.results import Number

Verdict = Literal["holds", "does not hold", "cannot be told", "not measured"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "cannot be told"
UNMEASURED: Verdict = "not measured"


def decide(gains: Sequence[Number]) -> Verdict:
    """Whether all gains are above 0: yes where all intervals are, no where one is below 0 throughout."""
    if not gains:
        return UNMEASURED
    if any(gain.known and gain.high < 0 for gain in gains):
        return FAILS
    return HOLDS if all(gain.known and gain.low > 0 for gain in gains) else OPEN


@dataclass(frozen=True)
class Leg:
    """What one measure says of a claim. gains: all of them must be above 0 for it to hold; text: the numbers.

    identical: whether what is compared is one and the same, image by image: then there is no gain, for certain.
    """

    measure: str
    text: str
    gains: tuple[Number, ...]
    identical: bool = False

    @property
    def verdict(self) -> Verdict:
        """By :func:`decide`."""
        return FAILS if self.identical else decide(self.gains)


@dataclass(frozen=True)
class Claim:
    """A claim and what holds of it for one model, or for one comparison of models.

    key: its name in report.json; source: where the paper has it, or whose claim it is; subject: the model or models;
    reason: why it was not measured, where it was not.
    """

    key: str
    statement: str
    source: str
    subject: str
    legs: tuple[Leg, ...] = ()
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the measures say that say anything; where they contradict each other it cannot be told."""
        told = {leg.verdict for leg in self.legs} & {HOLDS, FAILS}
        if len(told) == 1:
            return told.pop()
        return OPEN if any(leg.gains for leg in self.legs) else UNMEASURED

    @property
    def contradicted(self) -> bool:
        """Whether one measure says that it holds and another that it does not."""
        return {HOLDS, FAILS} <= {leg.verdict for leg in self.legs}

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        legs = [
            {"measure": leg.measure, "text": leg.text, "gains": [asdict(g) for g in leg.gains], "verdict": leg.verdict}
            for leg in self.legs
        ]
        named = {name: getattr(self, name) for name in ("key", "statement", "source", "subject", "reason", "verdict")}
        return {**named, "legs": legs}
