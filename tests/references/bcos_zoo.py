"""Models of the package ``bcos`` at random weights, and what they give: outputs, gradients, explanations."""

import warnings
from functools import partial

import torch
from torch import nn

NARROW = 8
"""How much narrower than published the convolutional networks are built for the default run."""


def entries():
    from bcos.models import pretrained

    return pretrained.list_available()


def is_standard(entry):
    """Whether an entry is a vision transformer without B-cos layers."""
    return entry.startswith("standard")


def can_be_narrowed(entry):
    """Whether layers alone say how wide the network is."""
    return entry.startswith(("resne", "densenet", "vgg", "convnext"))


def build(entry, narrow=False):
    """An entry whose weights, norms and running statistics are those of nothing in particular, in evaluation."""
    from bcos.models import pretrained

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(pretrained, entry)(**(narrow_options(entry) if narrow else {}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model.train()(images(entry, 4, 64))
    return model.eval()


def narrow_options(entry):
    """Arguments of an entry with which every layer has fewer channels."""
    from bcos.models.convnext import CNBlock
    from bcos.modules import BcosConv2d, norms

    def conv(inputs=None, outputs=None, *args, groups=1, **options):
        inputs, outputs = options.pop("in_channels", inputs), options.pop("out_channels", outputs)
        inputs = inputs if inputs == 6 else inputs // NARROW
        return BcosConv2d(inputs, outputs // NARROW, *args, groups=max(1, groups // NARROW), **options)

    by_position = entry in ("convnext_tiny", "convnext_base")
    norm = norms.NoBias(norms.DetachablePositionNorm2d if by_position else norms.BatchNormUncentered2d)

    def block(dim, *args, **options):  # has a parameter of this many channels
        return CNBlock(dim // NARROW, *args, conv_layer=BcosConv2d, norm_layer=norm)

    layers = {"conv_layer": conv, "norm_layer": lambda channels: norm(channels // NARROW)}
    return layers | ({"block": block} if entry.startswith("convnext") else {})


def images(entry, count, pixels, dtype=torch.float32):
    colours = torch.rand(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return (colours if is_standard(entry) else torch.cat([colours, 1 - colours], 1)).to(dtype)


def passes(model, x, explaining):
    """Output, input gradient and weight gradients, and the same input gradient while ``explaining()``."""
    found = {}
    for name, mode in (("", None), ("explained ", explaining)):
        leaf = x.clone().requires_grad_()
        model.zero_grad(set_to_none=True)
        if mode is None:
            out = model(leaf)
        else:
            with mode():
                out = model(leaf)
        generator = torch.Generator().manual_seed(3)
        out.backward(torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype))
        found |= {f"{name}output": out.detach(), f"{name}input gradient": leaf.grad}
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found[f"{name}weight gradients"] = torch.cat([leaf.grad.new_empty(0), *gradients])
    model.zero_grad(set_to_none=True)
    return found


def library_mode(model):
    """The library's explanation switch, also for a model without its mixin."""
    from bcos.common import explanation_mode

    return partial(explanation_mode, model)


def error(found, truth):
    """Relative, in the L2 norm; what is not a number counts as infinite."""
    distance = (found.double() - truth.double()).norm() / truth.double().norm()
    return float(distance.nan_to_num(torch.inf))
