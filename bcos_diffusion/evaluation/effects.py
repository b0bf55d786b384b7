"""Faithfulness in records: every method held against what taking words out of one prompt does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.subject import Subject
from bcos_diffusion.evaluation.ablations import Ablations
from bcos_diffusion.evaluation.judgement import judge


class Effects:
    """What a subject's words do, found once for all methods that are judged by it.

    removals: ways to take words out; seed: of the words that stand in for others.
    """

    def __init__(self, subject: Subject, removals: tuple[str, ...], seed: int):
        self.ablations = {how: Ablations(subject, how, seed) for how in removals}

    def judged(self, attributed: Attributed) -> dict[str, Any]:
        """How a method agrees with the effects, by removal: what a record keeps."""
        return {how: asdict(judge(attributed, ablations)) for how, ablations in self.ablations.items()}
