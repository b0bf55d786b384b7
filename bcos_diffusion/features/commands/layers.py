"""``bcos-diffusion features layers``: what can be read of a model."""

from __future__ import annotations

from bcos_diffusion.commands.options import Device, Model


def layers(model: Model = None, device: Device = "cpu") -> None:
    """List the layers of a model by alias and by name, with the shape of what they put out."""
    from bcos_diffusion.commands.options import find_device
    from bcos_diffusion.features.model_record import load
    from bcos_diffusion.features.shapes import listed

    subject = load(model, str(find_device(device)))
    print("\n".join(listed(subject)))
