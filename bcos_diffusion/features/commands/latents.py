"""``bcos-diffusion features latents``: what the latents of a dictionary tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from bcos_diffusion.commands.options import Device
from bcos_diffusion.commands.progress import progress

Sae = Annotated[Path, arg(metavar="SAE", help="Folder that `features sae` wrote.")]
Features = Annotated[
    Path | None, arg(metavar="FOLDER", help="Where the features are now; without it, where they were trained on.")
]


def latents(
    sae: Positional[Sae],
    features: Features = None,
    rows: int = 20,
    seed: int = 0,
    device: Device = "auto",
    out: Path = Path("bcos-features-latents"),
) -> None:
    """Say what latents tell: the images that activate them most, and how purely they tell what is in an image.

    Args:
        rows: Latents on a sheet: the strongest, and the purest of each factor.
        seed: Of the shuffled labels that say what chance is.
        out: Folder to write into.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    from bcos_diffusion.commands.options import find_device
    from bcos_diffusion.evaluation.json_values import for_json
    from bcos_diffusion.features.latents.activations import collect
    from bcos_diffusion.features.latents.codes import codes_of, parts_of
    from bcos_diffusion.features.latents.findings import find
    from bcos_diffusion.features.latents.sheet import draw_sheet, write_sheet
    from bcos_diffusion.features.sae import KSparseAutoencoder
    from bcos_diffusion.features.sae.origin import Origin
    from bcos_diffusion.staging import staged
    from bcos_kernels.files import write_json, write_tensors

    origin = Origin.read(sae)
    samples = origin.rows(features)
    store = samples.store
    autoencoder = KSparseAutoencoder.load(sae).to(find_device(device))
    with staged(out) as folder:
        with progress(len(parts_of(samples)), "part") as advance:
            codes = codes_of(autoencoder, samples, advance)
            activations = collect(codes, autoencoder.latents, samples.positions)
        found = find(activations, store.labels, store.classes, seed)
        sheets = {"strongest": found.strongest(rows)}
        sheets |= {f"purest-{factor}": found.purest(factor, rows) for factor in found.purity}
        labels = {factor: store.labels[factor] for factor in found.purity}
        for name, chosen in sheets.items():
            if len(chosen):
                sheet = draw_sheet(
                    lambda number: store.images([number])[0], found.top, chosen.tolist(), labels, found.classes,
                    samples.grid,
                )  # fmt: skip
                write_sheet(sheet, folder / f"{name}.png")
        told = {"sae": str(sae), "features": str(store.folder), "layer": origin.layer, "t": origin.t,
                "conditioning": origin.conditioning, "places": origin.places, "seed": seed}  # fmt: skip
        shown = {name: chosen.tolist() for name, chosen in sheets.items()}
        write_json(folder / "latents.json", for_json({**told, **found.to_dict(), "sheets": shown}))
        write_tensors(folder / "latents.safetensors", found.tensors())
    print("\n".join(found.lines()))
    drawn = {name: chosen for name, chosen in sheets.items() if len(chosen)}
    if drawn:
        print(f"\n{', '.join(str(out / f'{name}.png') for name in drawn)} show them", end="; ")
        first = int(next((drawn[name] for name in drawn if name != "strongest"), sheets["strongest"])[0])
        print(f"see what drives one with: bcos-diffusion features explain {sae} --latent {first}")
    print(f"{out / 'latents.json'} has the numbers")
