"""Train a k-sparse autoencoder on features: seeded, resumable, the same to the last digit on one machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bcos_diffusion.features.sae.autoencoder import KSparseAutoencoder, unit
from bcos_diffusion.features.sae.centre import SAMPLE, Centre, centre_of
from bcos_diffusion.features.sae.config import SAEConfig
from bcos_diffusion.features.sae.record import Curve, Record
from bcos_diffusion.features.sae.source import Features, check, read
from bcos_diffusion.features.sae.start import generator, revive_, start_

BETAS = (0.9, 0.999)
EPS = 6.25e-10
"""Of Adam, as Gao et al. 2024: gradients of latents that are rarely active are small."""
DEAD_AFTER = 10_000_000
CANDIDATES = 4096
"""Most features that dead latents choose from."""
_SAMPLE, _START, _PASS, _REVIVAL = range(4)

Callback = Callable[[int, dict[str, float]], object]


def train(
    features: Features,
    config: SAEConfig,
    out: Path,
    callback: Callback | None = None,
    device: torch.device | str = "cpu",
) -> KSparseAutoencoder:
    """Train on features ``[N, D]`` and return what is then in ``out``, an autoencoder of features as they are given.

    features: a floating tensor, or an object with ``__len__`` and ``rows(indices)`` that reads from elsewhere. The loss
    is the normalised MSE: the mean of ``‖x̂ - x‖²`` over a batch, over the mean of ``‖x - x̄‖²`` over (a sample of) the
    features. ``out`` gets ``autoencoder.json`` and ``.safetensors``, ``training.json`` and ``curve.jsonl``, one line a
    report: step, loss, L0, share of dead latents, latents revived so far. callback: gets each report. A run that was
    cut goes on from its ``checkpoint.safetensors`` to the very bits it would have had; one that is finished is read.
    Raises ValueError for bad features, and where ``out`` holds a run of another config or of other features.
    """
    check(features)
    run = _Run(features, config, torch.device(device))
    record = Record(Path(out), run.identity)
    if record.finished():
        return KSparseAutoencoder.load(out).to(device)
    saved = record.checkpoint()
    if saved is not None:
        run.restore(saved)
    curve = Curve(Path(out) / "curve.jsonl", run.step)
    while run.step < config.steps:
        report = run.advance()
        reports = run.step % config.log_every == 0 or run.step == config.steps
        if reports:
            curve.write(run.step, report)
        if run.step % config.checkpoint_every == 0 and run.step < config.steps:
            record.save_checkpoint(run.state())
        if reports and callback is not None:
            callback(run.step, report)
    found = run.autoencoder.scale_(1 / run.scale).requires_grad_()
    record.finish(found)
    return found


class _Run:
    """A run between two steps. Features are scaled so that a dimension has variance 1 on average."""

    def __init__(self, features: Features, config: SAEConfig, device: torch.device):
        self.features, self.config, self.device = features, config, device
        self.step, self.revived = 0, 0
        sample = self._read(self._some(SAMPLE, _SAMPLE))
        dim = sample.shape[1]
        self.centre: Centre = centre_of(sample)
        self.scale = (dim / self.centre.variance) ** 0.5
        self.batch = min(config.batch_size, len(features))
        self.passes = len(features) // self.batch
        """Steps of a pass; what is left of one is left out, which is other rows in each."""
        self.dead_after = config.dead_after or min(len(features), DEAD_AFTER)
        self.autoencoder = KSparseAutoencoder(dim, config.latents_of(dim), config.k).to(device)
        start = generator(config.seed, _START)
        factor = start_(self.autoencoder, sample * self.scale, self.centre.middle * self.scale, start)
        # Adam moves each number by about the learning rate: the encoder learns in units in which it starts as the
        # decoder. Else it would move faster by 1 / factor, and most latents would die of it.
        decoding = [self.autoencoder.decoder, self.autoencoder.pre_bias]
        encoding = [self.autoencoder.encoder, self.autoencoder.encoder_bias]
        groups = [{"params": decoding, "factor": 1.0}, {"params": encoding, "factor": factor}]
        self.optimiser = torch.optim.Adam(groups, lr=config.learning_rate, betas=BETAS, eps=EPS, fused=True)
        self.last_active = torch.zeros(self.autoencoder.latents, dtype=torch.int64, device=device)
        self.order, self.order_of = torch.empty(0, dtype=torch.int64), -1

    @property
    def identity(self) -> dict[str, object]:
        """What must be the same for a run to go on."""
        shape = {"rows": len(self.features), "dim": self.autoencoder.dim, "variance": self.centre.variance}
        return {"config": vars(self.config), "features": shape}

    def advance(self) -> dict[str, float]:
        """Take one step, and say what came of it."""
        x = self._batch()
        values, indices = self.autoencoder.encode(x)
        errors = (self.autoencoder.decode(values, indices) - x).square().sum(1)
        loss = errors.mean() / (self.centre.variance * self.scale**2)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._update()
        self.step += 1
        active = values.detach() > 0
        seen = self.step * self.batch
        self.last_active[indices[active]] = seen
        dead = self.last_active <= seen - self.dead_after
        report = {
            "loss": float(loss.detach()),
            "l0": float(active.sum()) / len(x),
            "dead_share": float(dead.double().mean()),
        }
        if self._revives() and dead.any():
            self._revive(dead)
        return {**report, "revived": float(self.revived)}

    @torch.no_grad()
    def _update(self) -> None:
        """Adam's step, with decoder rows that turn and do not grow: of length 1 before and after."""
        decoder = self.autoencoder.decoder
        assert decoder.grad is not None
        decoder.grad.addcmul_(torch.linalg.vecdot(decoder.grad, decoder)[:, None], decoder, value=-1)
        warm = min(1.0, (self.step + 1) / self.config.warmup) if self.config.warmup else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * warm * group["factor"]
        self.optimiser.step()
        decoder.copy_(unit(decoder))

    def _revives(self) -> bool:
        """Whether dead latents are looked for: as often as one can have died, but not so late that none would learn."""
        every = -(-self.dead_after // self.batch)
        return self.step % every == 0 and self.step + every <= self.config.steps

    def _revive(self, dead: Tensor) -> None:
        candidates = self._read(self._some(CANDIDATES, _REVIVAL, self.step)) * self.scale
        revive_(self.autoencoder, self.optimiser, dead, candidates, generator(self.config.seed, _REVIVAL, self.step, 1))
        self.last_active[dead] = self.step * self.batch
        self.revived += int(dead.sum())

    def _batch(self) -> Tensor:
        """The features of this step, scaled: every pass goes through them in another order."""
        number, at = divmod(self.step, self.passes)
        if self.order_of != number:
            self.order = torch.randperm(len(self.features), generator=generator(self.config.seed, _PASS, number))
            self.order_of = number
        return self._read(self.order[at * self.batch : (at + 1) * self.batch]) * self.scale

    def _some(self, most: int, *purpose: int) -> Tensor:
        """Indices of all features, or of as many as ``most`` drawn of them."""
        count = len(self.features)
        if count <= most:
            return torch.arange(count)
        return torch.randint(count, (most,), generator=generator(self.config.seed, *purpose))

    def _read(self, indices: Tensor) -> Tensor:
        return read(self.features, indices, torch.float32, self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors and counts from which :meth:`restore` goes on."""
        tensors = {"last_active": self.last_active}
        for name, parameter in self.autoencoder.named_parameters():
            moments = self.optimiser.state[parameter]
            tensors |= {name: parameter.detach(), **{f"{name}.{kind}": moments[kind] for kind in _MOMENTS}}
        return tensors, {"step": self.step, "revived": self.revived}

    @torch.no_grad()
    def restore(self, state: tuple[dict[str, Tensor], dict[str, int]]) -> None:
        """Go on from what :meth:`state` gave."""
        tensors, counts = state
        self.step, self.revived = counts["step"], counts["revived"]
        self.last_active.copy_(tensors["last_active"])
        for name, parameter in self.autoencoder.named_parameters():
            parameter.copy_(tensors[name])
            moments = {kind: torch.empty_like(parameter).copy_(tensors[f"{name}.{kind}"]) for kind in _MOMENTS}
            taken = torch.tensor(float(self.step), device=parameter.device)
            self.optimiser.state[parameter] = {"step": taken, **moments}


_MOMENTS = ("exp_avg", "exp_avg_sq")
