"""Images of one prompt without sets of its words, drawn once for all methods that are judged by them."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.baselines.removal import check_removal, without
from bcos_diffusion.baselines.subject import Subject
from bcos_diffusion.job import join

_AT_ONCE = 32


class Ablations:
    """How a subject's images change when words are taken out, remembered by the set of words.

    how, seed: as for :func:`~bcos_diffusion.baselines.removal.without`.
    """

    def __init__(self, subject: Subject, how: str, seed: int = 0):
        self.subject, self.how, self.seed = subject, check_removal(how), seed
        self._known: dict[tuple[bool, ...], Tensor] = {}

    @torch.no_grad()
    def differences(self, removed: Tensor) -> Tensor:
        """Images without the words that each row of ``removed`` ``[M, words]`` bool names, less those with all words.

        Returns ``[M, N, 6, H, W]``.
        """
        wanted = [tuple(row) for row in removed.tolist()]
        missing = [row for row in dict.fromkeys(wanted) if row not in self._known]
        for start in range(0, len(missing), _AT_ONCE):
            rows = missing[start : start + _AT_ONCE]
            text = without(self.subject, torch.tensor(rows), self.how, self.seed)
            # Beside the whole prompt, so that what changes nothing differs by exactly 0.
            whole, *drawn = self.subject.images(join([self.subject.text, text]))
            self._known |= {row: image - whole for row, image in zip(rows, drawn, strict=True)}
        return torch.stack([self._known[row] for row in wanted])

    def changes(self, removed: Tensor) -> Tensor:
        """How far each pixel moves, the L2 norm over six channels, on the CPU: ``[M, N, H, W]``."""
        return self.differences(removed).norm(dim=-3).cpu()

    def of_words(self) -> Tensor:
        """The true effect of every word by pixel: ``[words, N, H, W]``."""
        return self.changes(torch.eye(len(self.subject.words), dtype=torch.bool))
