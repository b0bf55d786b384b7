"""Compile every Triton kernel of the package for devices that need not be here; print what ptxas says of each.

    python -m references.compile_triton 80|90|100 [one|half|any]

One JSON line per kernel, variant and architecture: registers, bytes spilled, shared memory, and the widest load.
Needs a process of its own in which TRITON_INTERPRET is not set.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bcos_kernels.ops.dense import triton as dense_launch
from bcos_kernels.ops.dense import triton_kernels as dense
from bcos_kernels.ops.epilogue import triton as launch
from bcos_kernels.ops.epilogue import triton_kernels as epilogue
from bcos_kernels.ops.norms import triton as launch_norms
from bcos_kernels.ops.norms import triton_kernels as norms
from bcos_kernels.ops.norms import triton_row_kernels as row_norms

BIN = Path(triton.__file__).parent / "backends/nvidia/bin"
WIDE = set("norms lengths sums coefficients mean rstd means squares plain along base slope dw".split())
ADDRESSES = WIDE | set("out v kept grad grad_y weight x dx".split())
ROWS = (row_norms.rows_kernel, row_norms.rows_gradient_kernel)
FINISH = (norms.finish_moments_kernel, norms.finish_gradient_sums_kernel)
DERIVATIVES = (norms.gradient_sums_kernel, norms.gradient_kernel, row_norms.rows_gradient_kernel)
NORMS = (norms.moments_kernel, norms.normalise_kernel, *FINISH, *DERIVATIVES, row_norms.rows_kernel)
NUMBERS = {"exponent", "delta", "eps"}
WINDOW = {"KERNEL_H": 3, "KERNEL_W": 3, "STRIDE_H": 1, "STRIDE_W": 1, "DILATION_H": 1, "DILATION_W": 1}
ONES = {"members": 1, "groups": 1, "splits": 1, "tiles": 1, "steps": 1}  # a 1 is a constant to the compiler
PLACES = {"channels_last": (1 << 20, 1, 1 << 14, 256), "contiguous": (1 << 20, 4096, 64, 1)}


def cases():
    """(kernel, what is known when it is compiled)"""
    for power in ("one", "half", "any"):
        known = {"POWER": power, "UNIT": True, "FLAT": True}
        for from_output, grouped in itertools.product((False, True), repeat=2):
            yield epilogue.apply_factor_kernel, {**known, "FROM_OUTPUT": from_output, "GROUPED": grouped}
        yield epilogue.scale_backward_kernel, known
    yield epilogue.project_rows_kernel, {"BLOCK": 1024}
    for finish in ("none", "root of sum plus eps", "root plus eps"):
        yield epilogue.square_sums_kernel, {"FINISH": finish, "FLAT": True}
    yield epilogue.box_norm_kernel, WINDOW
    yield epilogue.spread_kernel, {**WINDOW, "FLAT": True}
    for centred in (False, True):
        yield from norm_cases({"CENTRED": centred, "ABOUT_MEAN": centred, "WEIGHT": True, "FLAT": True})
    yield from norm_cases({"CENTRED": True, "ABOUT_MEAN": True, "WEIGHT": False, "FLAT": False, **ONES})


def norm_cases(options):
    """The norms with statistics over groups and pixels, then those with statistics per pixel."""
    for kernel in (norms.moments_kernel, norms.gradient_sums_kernel):
        yield kernel, options
    for kernel in FINISH:
        yield kernel, {**options, "BLOCK": 1024, "HELD": False}
    for per_pixel in (False, True):
        yield norms.normalise_kernel, {**options, "PER_PIXEL": per_pixel}
    for held in (False, True):
        yield norms.gradient_kernel, {**options, "HELD": held}
    for whole in (False, True):
        known = {**options, "WHOLE": whole}
        yield row_norms.rows_kernel, {**known, "WRITE": True}
        yield row_norms.rows_gradient_kernel, {**known, "HELD": False, "NEED_DX": True, "NEED_DW": True}


def products(power):
    """(kernel, what is known, warps, stages) of every tile."""
    known = {"UNIT": True, "ROOT_OF_SUM": True, "HELD": False, "BAND": dense_launch.BAND, "POWER": power}
    for rows, columns, depth, warps, stages in dense_launch.FORWARD_TILES.values():
        tile = {"BLOCK_R": rows, "BLOCK_O": columns, "BLOCK_D": depth}
        yield dense.forward_kernel, known | tile, warps, stages
    for rows, columns, depth, warps, stages in dense_launch.BACKWARD_TILES.values():
        tile = {"BLOCK_R": rows, "BLOCK_O": depth, "BLOCK_D": columns}
        yield dense.backward_kernel, known | tile, warps, stages


def compiled(kernel, known, layout, dtype, architecture):
    """The kernel as it would be specialised for one group of a tensor whose sizes are multiples of 16."""
    names, one = kernel.arg_names, "_c" if layout == "channels_last" else "_w"
    tile = launch.TILE // 2 if kernel in (epilogue.scale_backward_kernel, *DERIVATIVES) else launch.TILE
    choose = launch_norms.row_blocks if kernel in ROWS else launch.blocks
    channels = 4096 if known.get("WHOLE") is False else 256
    block = dict(zip(("BLOCK_P", "BLOCK_C"), choose(4096, channels, [PLACES[layout]], tile), strict=True))
    known = {**known, **block}
    if kernel not in NORMS and not known.get("GROUPED"):
        known["groups"] = 1
    known.update({name: 1 for name in names if name.endswith(one)})
    return build(kernel, known, type_of(dtype), architecture)


def type_of(dtype):
    """The type of an argument by its name: what is kept per pixel, group or unit is fp32."""

    def of(name):
        if name in ADDRESSES:
            return "*fp32" if name in WIDE else f"*{dtype}"
        return "fp32" if name in NUMBERS else "i32"

    return of


def build(kernel, known, of, architecture, **options):
    """Compile a kernel whose whole numbers and addresses are all multiples of 16; ``of``: types by name."""
    names = kernel.arg_names
    known = {name: value for name, value in known.items() if name in names}
    types = {name: "constexpr" if name in known else of(name) for name in names}
    aligned = [i for i, name in enumerate(names) if types[name] not in ("constexpr", "fp32")]
    source = ASTSource(
        kernel,
        types,
        constexprs={(names.index(name),): value for name, value in known.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def resources(cubin):
    """Registers, stack and spilled bytes of the one kernel in a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([BIN / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", said.stdout))
    return {"registers": int(found["REG"]), "spilled": int(found["STACK"]) + int(found["LOCAL"])}


def widest_load(ptx):
    """Bits that one thread reads at most in one instruction."""
    loads = re.findall(r"ld\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)", ptx)
    return max(int(count or 1) * int(bits) for count, bits in loads)


def main():
    """``ARCHITECTURE``: every kernel but the matrix products; ``ARCHITECTURE POWER``: those."""
    architecture, *power = sys.argv[1:]
    if power:
        for kernel, known, warps, stages in products(*power):
            binary = build(kernel, known, type_of("bf16"), int(architecture), num_warps=warps, num_stages=stages)
            tell(binary, kernel=kernel.__name__, known=known)
        return
    for kernel, known in cases():
        for layout, dtype in (("channels_last", "bf16"), ("contiguous", "fp32")):
            binary = compiled(kernel, known, layout, dtype, int(architecture))
            what = {"kernel": kernel.__name__, "known": known, "layout": layout, "dtype": dtype}
            tell(binary, **what, load_bits=widest_load(binary.asm["ptx"]))


def tell(binary, **what):
    print(json.dumps({**what, "shared": binary.metadata.shared, **resources(binary.asm["cubin"])}), flush=True)


if __name__ == "__main__":
    main()
