"""All methods of attribution by name, the exact one among them: what an evaluation compares."""

from __future__ import annotations

from bcos_diffusion.baselines.ablation import LeaveOneOut
from bcos_diffusion.baselines.attribution import Attribution
from bcos_diffusion.baselines.daam import Daam
from bcos_diffusion.baselines.gradients import Gradient, InputGradient, IntegratedGradients, ValueGradient
from bcos_diffusion.baselines.priors import Centre, Random
from bcos_diffusion.baselines.rollout import Rollout
from bcos_diffusion.explanation.attribution import Exact


def by_name() -> dict[str, Attribution]:
    """Every method with its settings of the papers, in the order in which tables have them."""
    methods: tuple[Attribution, ...] = (
        Exact(),
        ValueGradient(),
        Daam(),
        Rollout(),
        InputGradient(),
        IntegratedGradients(),
        Gradient(),
        LeaveOneOut(),
        Random(),
        Centre(),
    )
    return {method.name: method for method in methods}
