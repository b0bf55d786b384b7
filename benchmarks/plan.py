"""Plan training on many devices: what a step computes and sends, counted from the model, and what follows from that.

    python benchmarks/plan.py --out benchmarks/results/plan.json

FLOPs and bytes are counted on fake tensors, which have no storage, so the paper's U-Net needs no memory. What a device
can do is an assumption that is named in every row, never a measurement. Measured, here: the gloo all-reduce of two
processes, and the scenes model's step on this CPU.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from machine import describe, print_table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_diffusion.networks.paper_unet import PaperUNet, PaperUNetConfig
from bcos_diffusion.networks.unet import UNet, UNetConfig
from bcos_diffusion.objective import Objective
from bcos_diffusion.training.batches import prepare, rounds
from bcos_diffusion.training.config import TrainConfig
from bcos_diffusion.training.recomputation import recompute
from bcos_diffusion.training.source import SceneSource
from bcos_diffusion.training.trainer import build_model
from bcos_kernels.files import write_json

RESULTS = Path(__file__).parent / "results"
TOKENS = {"paper": 77, "scenes": 24}
FP32 = 4
STATES = {"weights": 1, "gradients": 1, "Adam's moments": 2, "EMA": 1}
"""What is kept beside the activations, in numbers of fp32 per weight."""


def build(name: str) -> Denoiser:
    """The denoiser of a model."""
    return PaperUNet(PaperUNetConfig()) if name == "paper" else UNet(UNetConfig())


def count(name: str, recomputed: bool = False) -> dict[str, float]:
    """Parameters, and FLOPs and bytes kept for backward of one image's training step (fp32, denoising loss)."""
    with FakeTensorMode():
        return _count(build(name), TOKENS[name], recomputed)


def _count(network: Denoiser, tokens: int, recomputed: bool) -> dict[str, float]:
    if recomputed:
        recompute(network)
    size = network.config.size
    x, t = torch.rand(1, 6, size, size), torch.zeros(1, dtype=torch.long)
    said = torch.rand(1, tokens, network.config.text_dim)
    text = Conditioning(said, said, torch.ones(1, tokens, dtype=torch.bool))
    parameters = list(network.parameters())
    own = {id(p) for p in parameters}
    kept: dict[int, Tensor] = {}  # the tensors themselves, so that no id is given twice

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            kept[id(base)] = base
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            predicted = network(x, t, text)
        forward = counter.get_total_flops()
        predicted.pow(2).mean().backward()
    return {
        "parameters": sum(p.numel() for p in parameters),
        "forward_flops": forward,
        "step_flops": counter.get_total_flops(),
        "kept_bytes": sum(tensor.nbytes for tensor in kept.values()),
    }


@dataclass(frozen=True)
class Assumed:
    """What a device and its links are assumed to do: sustained TFLOP/s, and GB/s that each device sends at once."""

    tflops: float
    link_gb_s: float


ASSUMED = [Assumed(tflops, link) for tflops in (100.0, 300.0) for link in (12.5, 50.0, 300.0)]


def sent_bytes(parameters: float, devices: int, shard: bool) -> float:
    """Bytes that each device sends in a step. A ring all-reduce of gradients is a reduce-scatter and an all-gather;
    FSDP gathers weights for forward and again for backward, and scatters gradients."""
    return (3 if shard else 2) * (devices - 1) / devices * FP32 * parameters


def efficiency(
    counted: dict[str, float], assumed: Assumed, devices: int, images: int, shard: bool
) -> dict[str, float | str]:
    """Share of the time that devices compute, when nothing or everything that can be is sent meanwhile."""
    compute = counted["step_flops"] * images / (assumed.tflops * 1e12)
    send = sent_bytes(counted["parameters"], devices, shard) / (assumed.link_gb_s * 1e9)
    return {
        "scheme": "FSDP" if shard else "DDP",
        **asdict(assumed),
        "compute_s": compute,
        "send_s": send,
        "efficiency_apart": compute / (compute + send),
        "efficiency_overlapped": compute / max(compute, send),
    }


def measured_kernels() -> list[dict[str, Any]]:
    """Sum of the measured B-cos layers of a U-Net's training step, from every result of ``python -m benchmarks``."""
    found = []
    for path in sorted(RESULTS.glob("layers*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in result["rows"] if row["network"] == "U-Net" and row["pass"] == "train"]
        values = [(row["count"], row["peers"].get("bcos_kernels", {}).get("value")) for row in rows]
        timed = [n * value / 1e3 for n, value in values if value is not None]
        found.append({"file": path.name, "device": result["device"], "machine": result["machine"]["device"],
                      "seconds": sum(timed), "shapes": f"{len(timed)} of {len(values)}"})  # fmt: skip
    return found


def step_seconds(batch: int = 16, steps: int = 6) -> dict[str, float]:
    """Median seconds of the scenes model's step on this CPU, without and with recomputed activations."""
    config = TrainConfig(out=Path("unused"), batch_size=batch, effect_weight=0.0)
    found: dict[str, float] = {"batch": batch}
    data = SceneSource(config.model.size, config.seed)
    for name in ("kept", "recomputed"):
        model = build_model(config)
        if name == "recomputed":
            recompute(model.unet)
        objective = Objective(model)
        (round_,) = rounds(range(batch), 0, 1, None)
        portion = prepare(round_, data, model.tokenizer, config)
        seconds = []
        for _ in range(steps):
            objective.zero_grad(set_to_none=True)
            began = time.perf_counter()
            objective(portion)["total"].backward()
            seconds.append(time.perf_counter() - began)
        found[name] = median(seconds[1:])
    began = time.perf_counter()
    prepare(round_, data, model.tokenizer, config)
    return found | {"prepare": time.perf_counter() - began}


def all_reduce_seconds(megabytes: int = 64) -> dict[str, float]:
    """Median seconds of an all-reduce between two processes of this machine, over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--rank"]
    started = [
        subprocess.Popen([*command, str(rank), "--port", str(port), "--megabytes", str(megabytes)],
                         stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in started]
    return {"megabytes": megabytes, "seconds": float(said[0])}


def all_reduce(rank: int, port: int, megabytes: int) -> None:
    """One of the two processes; prints its median."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    values, seconds = torch.ones(megabytes * 2**20 // FP32), []
    for _ in range(8):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(values)
        seconds.append(time.perf_counter() - began)
    print(median(seconds[1:]))
    dist.destroy_process_group()


def main() -> None:
    """Count, measure what can be measured here, and print what follows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--images", type=int, default=16, help="images of a step on each device")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--megabytes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        all_reduce(options.rank, options.port, options.megabytes)
        return
    counted = {name: count(name) | {"recomputed_" + k: v for k, v in count(name, True).items() if k != "parameters"}
               for name in TOKENS}  # fmt: skip
    rows = [efficiency(counted["paper"], assumed, options.devices, options.images, shard)
            for shard in (False, True) for assumed in ASSUMED]  # fmt: skip
    weights = counted["paper"]["parameters"]
    sent = {name: sent_bytes(weights, options.devices, name == "FSDP") for name in ("DDP", "FSDP")}
    result = {
        "machine": describe("cpu"), "devices": options.devices, "images": options.images, "counted": counted,
        "states": {name: n * FP32 * weights for name, n in STATES.items()}, "sent": sent,
        "rows": rows, "kernels": measured_kernels(), "step": step_seconds(), "all_reduce": all_reduce_seconds(),
    }  # fmt: skip
    print_table(rows)
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1))
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
