"""``bcos-diffusion features pca``: three principal components of layers as colours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from bcos_diffusion.commands.progress import progress
from bcos_diffusion.features.commands.sae import Conditioning

MOST_COLUMNS = 24


def pca(
    features: Positional[Path],
    layers: Annotated[tuple[str, ...], arg(metavar="LAYER …")] = (),
    t: Annotated[tuple[int, ...], arg(metavar="T …")] = (),
    conditioning: Conditioning = None,
    count: int = 6,
    images: Annotated[tuple[int, ...], arg(metavar="N …")] = (),
    out: Path = Path("bcos-features-pca"),
) -> None:
    """Show each place of a layer by three principal components as red, green and blue, fitted over all images.

    Args:
        features: Folder that `features extract --spatial` wrote.
        layers: Of those that were read; all of them where none is named.
        t: Timesteps of those that were read; all of them where none is named.
        count: How many images are shown, from the first on.
        images: The numbers of other images to show.
        out: Folder to write into.
    """
    from bcos_diffusion.features.key import choose_many
    from bcos_diffusion.features.pca_figure import draw_pca
    from bcos_diffusion.features.pca_fits import fits_of, tensors
    from bcos_diffusion.features.store import FeatureStore
    from bcos_diffusion.staging import staged
    from bcos_kernels.files import write_json, write_tensors

    store = FeatureStore(features)
    keys = choose_many(store, layers, t, conditioning)
    numbers = list(images) or list(range(min(count, len(store))))
    if not numbers or not 0 <= min(numbers) <= max(numbers) < len(store):
        raise ValueError(f"images must be one or more of 0 to {len(store) - 1}, got {numbers or 'none'}")
    if len(keys) > MOST_COLUMNS:
        raise ValueError(
            f"{len(keys)} layers and timesteps are too many for a figure, at most {MOST_COLUMNS}; name some by --layers"
            " and --t"
        )
    with staged(out) as folder:
        with progress(len(keys), "layer") as advance:
            fits = fits_of(store, keys, numbers, advance)
        steps = len({key.t for key in keys}) > 1
        names = {key: f"{key.layer}, t = {key.t}" if steps else key.layer for key in keys}
        maps = {names[key]: fit.colours(store.read(*key, numbers)) for key, fit in fits.items()}
        explained = {names[key]: fit.explained for key, fit in fits.items()}
        title = "" if steps else f"t = {keys[0].t}, {keys[0].conditioning}"
        draw_pca(store.images(numbers), maps, folder / "pca.png", explained, title)
        shares = [{**key._asdict(), "explained": fit.explained.tolist()} for key, fit in fits.items()]
        write_json(folder / "pca.json", {"features": str(features), "images": numbers, "fits": shares})
        write_tensors(folder / "pca.safetensors", tensors(fits))
    for key, fit in fits.items():
        print(f"{key}: three components have {100 * float(fit.explained.sum()):.0f}% of the variance")
    print(f"\n{out / 'pca.png'} shows them, pca.safetensors has the components")
