"""What the training of a k-sparse autoencoder is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SAEConfig:
    """How large an autoencoder, and how long and fast it learns. Raises ValueError for what cannot be trained."""

    k: int = 32
    """Active latents of a sample."""
    expansion: int = 64
    """Latents for each dimension of the features."""
    latents: int | None = None
    """Their number, in the place of ``expansion``."""
    steps: int = 600
    batch_size: int = 256
    """Samples of one step; fewer where there are fewer."""
    learning_rate: float = 4e-4
    warmup: int = 500
    """Steps over which the learning rate rises linearly, ``min(1, (step + 1) / warmup)`` with the first step 0; it is
    constant from then on."""
    dead_after: int | None = None
    """A latent that was active in none of so many samples in a row is dead, and revived; by default of one pass over
    the features, at most 10 million (as in Gao et al. 2024, appendix A.2)."""
    seed: int = 0
    log_every: int = 50
    """Steps from one line of the learning curve to the next."""
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        counts = ("k", "expansion", "steps", "batch_size", "log_every", "checkpoint_every")
        wrong = [f"{name} {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        wrong += [f"{n} {v}" for n in ("latents", "dead_after") if (v := getattr(self, n)) is not None and v < 1]
        if wrong:
            raise ValueError(f"must be at least 1: {', '.join(wrong)}")
        if not self.learning_rate > 0 or self.warmup < 0 or self.seed < 0:
            raise ValueError(
                "learning_rate must be above 0, warmup and seed not negative, got"
                f" {self.learning_rate}, {self.warmup}, {self.seed}"
            )

    def latents_of(self, dim: int) -> int:
        """The number of latents for features of ``dim`` dimensions. Raises ValueError where there are fewer than k."""
        latents = self.expansion * dim if self.latents is None else self.latents
        if latents < self.k:
            raise ValueError(f"k {self.k} must be at most the number of latents, {latents}")
        return latents
