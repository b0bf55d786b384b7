"""Many processes as one: how they start, how weights are spread over them, and how tensors are made whole again.

accelerate starts the processes' group, scales fp16 and wraps for DDP. Its FSDP plugin refuses CPUs, so weights are
sharded by torch's own ``fully_shard`` (FSDP2), the same on every device.
"""

from __future__ import annotations

import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, GradientAccumulationPlugin
from torch import Tensor, nn
from torch.accelerator import is_available
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from bcos_diffusion.training.config import TrainConfig
from bcos_diffusion.training.stages import stages


def start(config: TrainConfig) -> Accelerator:
    """Join the other processes, if any. Raises ValueError for a precision that the device has not."""
    accelerator = Accelerator(
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # whatever its launcher was told: ours
        mixed_precision=config.precision,
        cpu=not is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision fp16 needs a device; a CPU trains in bf16 or in full precision (no)")
    if accelerator.distributed_type not in (
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
        DistributedType.MULTI_XPU,
        DistributedType.MULTI_NPU,
    ):
        raise ValueError(
            f"accelerate was told to use {accelerator.distributed_type.value}; launch without it, and with --shard"
            " to spread weights over the processes"
        )
    if config.shard and accelerator.num_processes == 1:
        raise ValueError("shard needs at least two processes; start them with accelerate launch or torchrun")
    return accelerator


def wrap(accelerator: Accelerator, objective: nn.Module, denoiser: nn.Module, shard: bool) -> nn.Module:
    """``objective`` on its device, for DDP or, with ``shard``, with the parameters of each stage in shards."""
    if not shard:
        return accelerator.prepare_model(objective)
    objective.to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    # A stage may return a view; nothing here writes into one, which is what torch warns of.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for stage in stages(denoiser):
        fully_shard(stage, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def rank() -> int:
    """The number of this process among all."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its shard, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(part: Tensor, like: Tensor) -> Tensor:
    """All of a tensor of which each process holds ``part``, spread as ``like`` is. All processes must call it."""
    if not isinstance(like, DTensor) or part.ndim != like.ndim:
        return part
    part = part.to(like.device)
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    ).full_tensor()


def spread(part: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`local`: this process's ``part`` as a tensor spread as ``like`` is."""
    if not isinstance(like, DTensor) or part.ndim != like.ndim:
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def everywhere(value: Tensor) -> Tensor:
    """A number that may still be a sum over the processes' shards, summed. All processes must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def held_rows(like: Tensor) -> slice:
    """The rows of a tensor spread as ``like`` is that this process holds."""
    if not isinstance(like, DTensor):
        return slice(None)
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return slice(offset[0], offset[0] + shape[0])
