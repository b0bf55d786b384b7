"""Leave one word out: what changes without it. Not a rival but the oracle, at the price of a pass for every word."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.removal import check_removal, without_each
from bcos_diffusion.baselines.subject import OfSubject, Subject
from bcos_diffusion.job import join


@dataclass(frozen=True)
class LeaveOneOut(OfSubject):
    """A map is |x̂(c) - x̂(c without i)| at each pixel, the L2 norm over six channels; a score that of the whole.

    removal, seed: how a word is taken out, as in :func:`~bcos_diffusion.baselines.removal.without`.
    """

    removal: str = "drop"
    seed: int = 0
    name: str = "leave_one_out"
    label: str = "leave one out"

    def __post_init__(self) -> None:
        check_removal(self.removal)

    @torch.no_grad()
    def attribute(self, subject: Subject) -> Attributed:
        """The change of a subject's images by word. Whole runs start from the same noise, yet may draw elsewhere."""
        # In one batch, so that a word whose removal changes nothing has a map of exactly 0.
        image, *changed = subject.images(join([subject.text, without_each(subject, self.removal, self.seed)]))
        return Attributed.of_maps((torch.stack(changed) - image).norm(dim=-3))
