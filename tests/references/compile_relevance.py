"""Compile the Triton kernels that reduce relevance for devices that need not be here; print what ptxas says of each.

    python -m references.compile_relevance 80|90|100

As ``compile_triton``, with the sizes of an attention and of an image.
"""

import sys

import torch

from bcos_kernels.ops.attention_relevance import triton as attention
from bcos_kernels.ops.attention_relevance import triton_kernels as attention_kernels
from bcos_kernels.ops.contribution import triton as contribution
from bcos_kernels.ops.contribution import triton_kernels as contribution_kernels
from bcos_kernels.ops.contribution.plan import plan
from references.compile_triton import build, tell, widest_load

FLOATS = {"scale"}
WIDE = {"parts", "relevance", "bases", "inverses", "found"}
INPUTS = {"x", "g", "q", "k", "v", "bias", "grad_v"}
IMAGE = torch.empty(4, 320, 64, 64, device="meta")
LAYOUTS = {"contiguous": IMAGE, "channels_last": IMAGE.to(memory_format=torch.channels_last)}


def sums():
    """(kernel, what is known when it is compiled, dtype, variant)"""
    for layout, x in LAYOUTS.items():
        for name, g in (("like x", x), ("expanded", torch.empty((), device="meta").expand_as(x))):
            for dims in ((1,), (1, 2, 3)):
                walk = plan(x, g, dims)[2]
                strides = (*walk.x_kept, *walk.x_summed, *walk.g_kept, *walk.g_summed)
                named = [f"{t}_{axis}{i}" for t in "xg" for axis in "ks" for i in range(3)]
                known = {name: stride for name, stride in zip(named, strides, strict=True) if stride in (0, 1)}
                known.update(zip(("BLOCK_K", "BLOCK_S"), contribution.blocks(walk), strict=True))
                dtype = "bf16" if layout == "channels_last" else "fp32"
                yield contribution_kernels.contribution_kernel, known, dtype, f"{layout}, g {name}, over {dims}"


def attentions():
    """The same for heads of 64 and 128 features, a few tokens in one tile, and many with a mask."""
    units = {name: 1 for name in ("q_d", "k_d", "v_e", "g_e", "bias_s")}
    for size in (64, 128):
        for dtype in (torch.bfloat16, torch.float32):
            name = "bf16" if dtype == torch.bfloat16 else "fp32"
            few = {**units, **attention.shapes(size, size, 16, None, dtype), "WHOLE": True, "GRADIENT": True}
            yield attention_kernels.tokens_kernel, few, name, f"head {size}, all tokens in a tile"
            mask = torch.empty(1, dtype=torch.bool)
            for kernel, ahead in (
                (attention_kernels.softmax_kernel, attention.TOKENS_AHEAD),
                (attention_kernels.tokens_kernel, attention.TOKENS_AHEAD),
                (attention_kernels.maps_kernel, attention.MAPS_AHEAD),
            ):
                many = attention.shapes(size, size, 4096, mask, dtype, ahead)
                yield kernel, {**units, **many, "WHOLE": False, "GRADIENT": True}, name, f"head {size}, masked"


def compiled(kernel, known, dtype, architecture):
    """The kernel as it would be specialised for tensors whose sizes are multiples of 16."""
    options = {name: known[name] for name in known if name == "num_stages"}
    if known.get("BIAS") == "none":
        known = {**known, "bias": None}
    if known.get("WHOLE"):
        known = {**known, "bases": None, "inverses": None}

    def of(name):
        if name == "bias" and known["BIAS"] == "visible":
            return "*u8"
        if name in WIDE | INPUTS:
            return "*fp32" if name in WIDE else f"*{dtype}"
        return "fp32" if name in FLOATS else "i32"

    return build(kernel, known, of, architecture, **options)


def main():
    architecture = int(sys.argv[1])
    for kernel, known, dtype, variant in (*sums(), *attentions()):
        binary = compiled(kernel, known, dtype, architecture)
        what = {"kernel": kernel.__name__, "variant": variant, "dtype": dtype}
        tell(binary, **what, load_bits=widest_load(binary.asm["ptx"]))


if __name__ == "__main__":
    main()
