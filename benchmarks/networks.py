"""The layers that are measured, derived from the architectures that have them.

The U-Net is the one of "Interpretable Diffusion Models with B-cos Networks" (Appendix C): that of Stable
Diffusion 2.1 without VAE, with six channels in and out, one residual block a level and the channels not
doubled at the second. ResNet-50 and ViT-B/16 are those of "B-cos Alignment" (Böhle et al. 2024) at 224 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.shapes import Layer, distinct

IMAGE = 64
CHANNELS = 320
MULTIPLIERS = (1, 1, 4, 4)
ATTENTION_LEVELS = (0, 1, 2)
"""Levels with a transformer; the middle has one too."""
CONTEXT, TOKENS = 1024, 77
TIME = 4 * CHANNELS

CALLS = "one call"
"""The network of shapes so tiny that only the price of a call is left."""


def conv(
    name: str, inputs: int, outputs: int, size: int, kernel: int = 1, stride: int = 1, network: str = "U-Net"
) -> Layer:
    """A convolution of a square map of ``size``, padded by half its kernel."""
    return Layer(network, name, "conv", inputs, outputs, size, kernel=kernel, stride=stride)


def linear(name: str, inputs: int, outputs: int, tokens: int, network: str = "U-Net") -> Layer:
    """A matrix product for each of ``tokens``."""
    return Layer(network, name, "linear", inputs, outputs, tokens)


def residual_block(name: str, inputs: int, outputs: int, side: int) -> Iterator[Layer]:
    """Two convolutions with the timestep between them, and a skip where the channels change."""
    yield conv(f"{name}.conv_1", inputs, outputs, side, 3)
    yield linear(f"{name}.time", TIME, outputs, 1)
    yield conv(f"{name}.conv_2", outputs, outputs, side, 3)
    if inputs != outputs:
        yield conv(f"{name}.skip", inputs, outputs, side)


def transformer(name: str, channels: int, side: int) -> Iterator[Layer]:
    """Projections around self-attention, cross-attention and a GEGLU feed-forward, all linear."""
    pixels = side**2
    yield linear(f"{name}.project_in", channels, channels, pixels)
    for attention, context, tokens in (("pixels", channels, pixels), ("tokens", CONTEXT, TOKENS)):
        yield linear(f"{name}.{attention}.query", channels, channels, pixels)
        yield linear(f"{name}.{attention}.key", context, channels, tokens)
        yield linear(f"{name}.{attention}.value", context, channels, tokens)
        yield linear(f"{name}.{attention}.out", channels, channels, pixels)
    yield linear(f"{name}.feed_forward.up", channels, 8 * channels, pixels)  # four times as wide, and its gate
    yield linear(f"{name}.feed_forward.down", 4 * channels, channels, pixels)
    yield linear(f"{name}.project_out", channels, channels, pixels)


def stage(name: str, level: int, inputs: int) -> Iterator[Layer]:
    """A residual block and, where the level has one, a transformer."""
    outputs, side = MULTIPLIERS[level] * CHANNELS, IMAGE // 2**level
    yield from residual_block(f"{name}.block", inputs, outputs, side)
    if level in ATTENTION_LEVELS:
        yield from transformer(name, outputs, side)


def unet() -> Iterator[Layer]:
    """Every layer of the U-Net, in the order in which it is run."""
    yield linear("time.0", CHANNELS, TIME, 1)
    yield linear("time.1", TIME, TIME, 1)
    yield conv("conv_in", 6, CHANNELS, IMAGE, 3)
    width, last = CHANNELS, len(MULTIPLIERS) - 1
    kept = [width]
    for level, multiplier in enumerate(MULTIPLIERS):
        yield from stage(f"down.{level}", level, width)
        width = multiplier * CHANNELS
        kept.append(width)
        if level < last:
            yield conv(f"downsample.{level}", width, width, IMAGE // 2**level, 3, stride=2)
            kept.append(width)
    side = IMAGE // 2**last
    yield from residual_block("middle.0", width, width, side)
    yield from transformer("middle", width, side)
    yield from residual_block("middle.1", width, width, side)
    for level in range(last, -1, -1):
        for block in range(2):  # one more than on the way down
            yield from stage(f"up.{level}.{block}", level, width + kept.pop())
            width = MULTIPLIERS[level] * CHANNELS
        if level:
            yield conv(f"upsample.{level}", width, width, 2 * IMAGE // 2**level, 3)
    yield conv("conv_out", width, 6, IMAGE, 3)


def resnet50() -> Iterator[Layer]:
    """Every layer of B-cos ResNet-50, whose classifier is a 1×1 convolution before the average."""
    network, width, side = "ResNet-50", 64, 56
    yield conv("conv1", 6, width, 224, 7, 2, network)
    for level, (planes, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            stride = 2 if level > 1 and block == 0 else 1
            name = f"layer{level}.{block}"
            yield conv(f"{name}.conv1", width, planes, side, network=network)
            yield conv(f"{name}.conv2", planes, planes, side, 3, stride, network)
            if block == 0:
                yield conv(f"{name}.downsample", width, 4 * planes, side, 1, stride, network)
            side //= stride
            yield conv(f"{name}.conv3", planes, 4 * planes, side, network=network)
            width = 4 * planes
    yield conv("fc", width, 1000, side, network=network)


def vit_b() -> Iterator[Layer]:
    """Every layer of ViT-B/16: 196 patches and a class token."""
    network, width, tokens = "ViT-B", 768, 197
    yield linear("patches", 6 * 16**2, width, tokens - 1, network)
    for block in range(12):
        yield linear(f"{block}.qkv", width, 3 * width, tokens, network)
        yield linear(f"{block}.out", width, width, tokens, network)
        yield linear(f"{block}.up", width, 4 * width, tokens, network)
        yield linear(f"{block}.down", 4 * width, width, tokens, network)
    yield linear("head", width, 1000, 1, network)


SMALL = (
    Layer("small maps", "conv", "conv", 64, 64, 8, 2, kernel=3),
    Layer("small maps", "conv", "conv", 256, 256, 8, 1, kernel=3),
    Layer("small maps", "conv", "conv", 512, 512, 4, 1, kernel=3),
    Layer("small maps", "conv", "conv", 512, 512, 1, 1, kernel=1),
    Layer("small maps", "linear", "linear", 64, 64, 16, 1),
    Layer("small maps", "linear", "linear", 512, 512, 1, 1),
)
OTHER = (
    Layer("other options", "general B", "conv", 128, 128, 28, 1, kernel=3, b=1.5),
    Layer("other options", "general B", "conv", 256, 1024, 14, 1, b=1.5),
    Layer("other options", "general B", "linear", 768, 768, 197, 1, b=1.25),
    Layer("other options", "MaxOut", "conv", 128, 128, 28, 1, kernel=3, max_out=2),
    Layer("other options", "MaxOut", "linear", 768, 768, 197, 1, max_out=2),
    Layer("other options", "groups", "conv", 128, 128, 28, 1, kernel=3, groups=8),
)
TINY = (
    Layer(CALLS, "conv", "conv", 8, 8, 4, 1, kernel=3),
    Layer(CALLS, "linear", "linear", 8, 8, 1, 1),
)

QUICK = (
    "U-Net 3×3 320→320 @64²",
    "U-Net 3×3 1280→1280 @16²",
    "U-Net 1×1 640→320 @64²",
    "U-Net linear 320→320 @4096",
    "U-Net linear 1280→10240 @64",
    "ResNet-50 7×7 6→64 /2 @224²",
    "ResNet-50 3×3 128→128 @28²",
    "ResNet-50 1×1 256→1024 @14²",
    "ViT-B linear 768→768 @197",
    "ViT-B linear 768→3072 @197",
    "small maps 3×3 256→256 @8²",
    "small maps linear 64→64 @16",
    "other options 3×3 128→128 @28² B=1.5",
    "one call 3×3 8→8 @4²",
    "one call linear 8→8 @1",
)
"""Network and label (for one image) of the shapes that stand for the others where time is short."""

BATCH_ON_DEVICE = {"U-Net": 8, "ResNet-50": 32, "ViT-B": 32, "other options": 32}
"""Images at once on a CUDA device; one fills no such device. On the CPU the shapes are taken as they are."""


def layers(device: str, quick: bool = False) -> list[Layer]:
    """Every distinct layer to measure on a device of this type, or those of ``QUICK`` alone."""
    every = [*distinct(unet()), *distinct(resnet50()), *distinct(vit_b()), *SMALL, *OTHER, *TINY]
    if device == "cuda":
        every = [replace(layer, batch=BATCH_ON_DEVICE.get(layer.network, layer.batch)) for layer in every]
    return [layer for layer in every if stands_for_others(layer)] if quick else every


def stands_for_others(layer: Layer) -> bool:
    """Whether ``QUICK`` names the layer, whatever its batch."""
    return f"{layer.network} {replace(layer, batch=1).label}" in QUICK


def running_order(chosen: list[Layer]) -> list[Layer]:
    """Those of ``QUICK`` first, then the cheap before the dear: a time limit then costs as little as it can."""
    return sorted(chosen, key=lambda layer: (not stands_for_others(layer), layer.multiply_adds))
