"""``bcos-diffusion features explain``: what drives a latent, exactly, and what it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from bcos_diffusion.commands.options import Device
from bcos_diffusion.commands.progress import progress
from bcos_diffusion.features.commands.latents import Features, Sae

ModelNow = Annotated[
    str | None, arg(metavar="MODEL", help="Where the model of the features is now; without it, where it was.")
]


def explain(
    sae: Positional[Sae],
    latent: Annotated[int, arg(metavar="J")],
    image: Annotated[int | None, arg(metavar="N")] = None,
    prompt: Annotated[str | None, arg(metavar="TEXT")] = None,
    seed: int = 0,
    features: Features = None,
    model: ModelNow = None,
    device: Device = "auto",
    out: Path = Path("bcos-features-latent"),
) -> None:
    """Say which words and which pixels of x_t drive a latent, exactly, and what its direction draws.

    It is looked at on the image that activates it most, noised as it was extracted, unless another or a prompt is
    given.

    Args:
        latent: Its number.
        image: The number of another image of the extraction.
        prompt: Look at the run that draws this instead, at the step nearest to the timestep of the features.
        seed: Of the picture that the prompt draws.
        out: Folder to write into.
    """
    if image is not None and prompt is not None:
        raise ValueError("give an image or a prompt, not both")
    from bcos_diffusion.commands.options import find_device
    from bcos_diffusion.features.again import Again
    from bcos_diffusion.features.latents.activations import stream
    from bcos_diffusion.features.latents.attribution import check_latents
    from bcos_diffusion.features.latents.choice import explainable, step_of_image, step_of_prompt, strongest_place
    from bcos_diffusion.features.latents.codes import codes_of, parts_of
    from bcos_diffusion.features.latents.explained import Explained
    from bcos_diffusion.features.latents.top import top_images
    from bcos_diffusion.features.model_record import load_again
    from bcos_diffusion.features.sae import KSparseAutoencoder
    from bcos_diffusion.features.sae.origin import Origin
    from bcos_diffusion.staging import staged

    origin = Origin.read(sae)
    samples = origin.rows(features)
    store = samples.store
    autoencoder = KSparseAutoencoder.load(sae)
    check_latents(autoencoder, [latent])
    subject = explainable(load_again(store, model, str(find_device(device))))
    step = None if prompt is None else step_of_prompt(subject, origin.key, prompt, seed)
    with staged(out) as folder:
        with progress(len(parts_of(samples)), "part") as advance:
            codes = codes_of(autoencoder, samples, advance)
            top = top_images(stream(codes, autoencoder.latents, samples.positions))
        if step is None:
            image = int(top.image[latent, 0]) if image is None else image
            if image < 0:
                raise ValueError(f"latent {latent} is active on no image; give another, or an --image or a --prompt")
            step, text = step_of_image(Again(store, subject), subject, origin.key, image)
        else:
            text = str(prompt)
        position = strongest_place(step, autoencoder, latent) if origin.places else None
        found = Explained.of(step, autoencoder, latent, position)
        about = {"sae": str(sae), "layer": origin.layer, "conditioning": origin.conditioning, "image": image,
                 "text": text, "seed": None if prompt is None else seed,
                 "top_images": [i for i in top.image[latent].tolist() if i >= 0]}  # fmt: skip
        found.write(folder, autoencoder, top, lambda number: store.images([number])[0], about)
    print("\n".join(found.lines()))
    if prompt is not None:
        print(
            f"this is the step of the run nearest to t = {origin.t}, where latents were learned ({origin.conditioning})"
        )
    print(f"\n{out / 'latent.png'} shows it, {out / 'latent.json'} has the numbers, latent.safetensors the maps")
