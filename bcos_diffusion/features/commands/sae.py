"""``bcos-diffusion features sae``: make a dictionary of what one layer says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from bcos_diffusion.commands.options import Device

Layer = Annotated[str | None, arg(metavar="LAYER", help="Which layer; needed where more than one was read.")]
Timestep = Annotated[int | None, arg(metavar="T", help="Which timestep; needed where more than one was read.")]
Conditioning = Annotated[
    str | None, arg(metavar="NAME", help="Which conditioning; needed where more than one was read.")
]


def sae(
    features: Positional[Path],
    layer: Layer = None,
    t: Timestep = None,
    conditioning: Conditioning = None,
    places: bool = False,
    k: int = 32,
    expansion: int = 64,
    steps: int = 600,
    batch_size: int = 256,
    seed: int = 0,
    device: Device = "auto",
    out: Path = Path("bcos-features-sae"),
) -> None:
    """Train a k-sparse autoencoder on one layer at one timestep; run again to go on where it was cut.

    Args:
        features: Folder that `features extract` wrote.
        places: Make each place of spatial features a sample, and not the mean over places.
        k: Active latents of a sample.
        expansion: Latents for each channel of the layer.
        steps: How long to train, in batches.
        batch_size: Samples of a batch.
        seed: Of the directions it starts from and of the order of samples.
        out: Folder to write into.
    """
    from dataclasses import asdict

    from bcos_diffusion.commands.options import find_device
    from bcos_diffusion.features.key import choose
    from bcos_diffusion.features.sae import SAEConfig, evaluate, train
    from bcos_diffusion.features.sae.origin import Origin
    from bcos_diffusion.features.store import FeatureStore
    from bcos_diffusion.features.stored_rows import StoredRows
    from bcos_kernels.files import write_json

    config = SAEConfig(k=k, expansion=expansion, steps=steps, batch_size=batch_size, seed=seed)
    store = FeatureStore(features)
    rows = StoredRows(store, choose(store, layer, t, conditioning), places)
    count = config.latents_of(rows.dim)
    where = find_device(device)
    origin = Origin.of(store, rows.key, places)
    samples = rows.held()
    origin.note(out)
    print(f"{rows.key}: {len(rows):,} samples of {rows.dim} channels, {count:,} latents", flush=True)
    with tqdm(total=steps, unit="step", disable=None, leave=False) as bar:

        def tick(step: int, report: dict[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{report['loss']:.4f}")

        autoencoder = train(samples, config, out, tick, where)
    metrics = evaluate(autoencoder, samples)
    write_json(out / "metrics.json", asdict(metrics))
    print(
        f"of what it learned from: explained variance {metrics.explained_variance:.3f}, normalised error"
        f" {metrics.normalised_mse:.3f}, {metrics.l0:.1f} latents active in a sample,"
        f" {100 * metrics.dead_share:.1f}% in none"
    )
    print(f"wrote {out}; see what its latents tell with: bcos-diffusion features latents {out}")
