"""Compile the Triton kernels of sparse sums for devices that need not be here; print what ptxas says of each.

    python -m references.compile_sparse 80|90|100

As ``compile_triton``, at the widths of Stable Diffusion's features and of a small model's.
"""

import sys

from bcos_diffusion.features.sae.sparse import triton, triton_kernels
from references.compile_triton import build, tell, widest_load

FLOATS = {"out", "x", "table", "values"}


def main():
    for width in (208, 1280):
        for dtype in ("fp32", "bf16"):
            for kernel, entries in ((triton_kernels.bags_kernel, 16), (triton_kernels.products_kernel, 32)):
                known = dict(zip(("BLOCK_J", "BLOCK_D"), triton.blocks(entries, width), strict=True))

                def of(name, dtype=dtype):
                    if name in FLOATS:
                        return f"*{dtype}"
                    return "*i64" if name in ("indices", "starts") else "i32"

                binary = build(kernel, known, of, int(sys.argv[1]))
                what = {"kernel": kernel.__name__, "width": width, "dtype": dtype}
                tell(binary, **what, load_bits=widest_load(binary.asm["ptx"]))


if __name__ == "__main__":
    main()
