"""The plan of a conversion: every decision is made before the first module is touched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin

from bcos_kernels.convert.options import Options, find_stem
from bcos_kernels.convert.rules import families, gates, layers, norms, pools
from bcos_kernels.convert.rules.attention import MultiheadAttention
from bcos_kernels.convert.rules.functions import OwnForward
from bcos_kernels.convert.rules.gates import has_forward_of
from bcos_kernels.convert.swap import Converted
from bcos_kernels.modules import norms as own_norms

_LAYERS: dict[type[nn.Module], type] = {
    nn.Linear: layers.Linear,
    nn.Conv1d: layers.Conv1d,
    nn.Conv2d: layers.Conv2d,
}
_TRANSFORMERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_BIASED = (nn.Linear, _ConvNd, nn.LayerNorm, nn.GroupNorm)  # their forward takes None for a bias
# Of torch's own modules those that are linear, choose, or hand on to others.
_LINEAR = (
    "linear.Identity", "dropout.", "pooling.", "padding.", "flatten.", "fold.", "upsampling.", "pixelshuffle.",
    "channelshuffle.", "container.", "conv.", "transformer.TransformerEncoder", "transformer.TransformerDecoder",
    "transformer.Transformer",
)  # fmt: skip
_NONLINEAR_POOLS = (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class Step(NamedTuple):
    """One module that will be converted."""

    name: str
    module: nn.Module
    rule: type
    changes: dict[str, Any]
    became: str


@dataclass
class Plan:
    """Steps, and why other modules are left alone; see :class:`bcos_kernels.convert.report.Report`."""

    steps: list[Step] = field(default_factory=list)
    unchanged: dict[str, str] = field(default_factory=dict)
    unconverted: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def plan(model: nn.Module, options: Options) -> Plan:
    """Decide about every module. Raises ValueError for options that do not fit the model."""
    modules = dict(model.named_modules())
    options.check(list(modules))
    planner = _Planner(modules, options)
    for name, module in modules.items():
        planner.decide(name, module)
    return planner.plan


class _Planner:
    def __init__(self, modules: dict[str, nn.Module], options: Options):
        self.options, self.plan = options, Plan()
        order = [name for name, module in modules.items() if has_forward_of(module, tuple(_LAYERS))]
        self.depth = {name: i / max(1, len(order) - 1) for i, name in enumerate(order)}
        self.stem = None if options.stem is None else find_stem(options.stem, modules)
        if self.stem is not None:
            _check_stem(self.stem, modules, options)
        self.constants: dict[nn.Module, int] = {}
        self.factors: set[nn.Module] = set()
        self.conditioning: set[nn.Module] = set()
        for module in modules.values():
            for child, multiplies in families.constant_children(module).items():
                self.constants[getattr(module, child)] = multiplies
            for child in families.gated_children(module) or ():
                self.factors.add(getattr(module, child))
            if families.is_conditioning(module):
                self.conditioning.update(module.modules())
        self.constants |= {module: 0 for name, module in modules.items() if options.is_constant(name)}
        for module in self.constants:
            self.conditioning.update(child for child in module.modules() if child is not module)

    def decide(self, name: str, module: nn.Module) -> None:
        """File one module under steps, unchanged, unconverted or refused; nothing for what only hands on."""
        plan = self.plan
        if isinstance(module, Converted):
            plan.unchanged[name] = "already converted"
        elif not self.options.selects(name):
            plan.unchanged[name] = "excluded"
        elif reason := _refusal(module):
            plan.refused[name] = reason
        elif module in self.conditioning:
            if not list(module.children()):
                plan.unchanged[name] = "computes a constant that the budget names"
        elif module in self.constants:
            self.step(name, module, layers.Constant, {"multiplies": self.constants[module]}, "a named constant")
        elif isinstance(module, nn.Embedding):
            self.step(name, module, layers.Constant, {"multiplies": 0}, "a named constant")
        elif reason := families.unsupported(module):
            plan.unconverted[name] = reason
        elif not (self.layer(name, module) or self.norm(name, module) or self.function(name, module)):
            self.rest(name, module)

    def step(self, name: str, module: nn.Module, rule: type, changes: dict[str, Any], became: str) -> bool:
        """Plan a conversion, and with it the end of a bias that shall go."""
        removes = self.options.biases == "remove" and isinstance(module, _BIASED) and rule is not layers.Constant
        if removes and getattr(module, "bias", None) is not None:
            changes, became = {**changes, "bias": None}, f"{became}, without its bias"
        self.plan.steps.append(Step(name, module, rule, changes, became))
        return True

    def layer(self, name: str, module: nn.Module) -> bool:
        """Convolutions and linear layers."""
        rule = next((rule for kind, rule in _LAYERS.items() if has_forward_of(module, (kind,))), None)
        if rule is None:
            return False
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in families.STEERING:
            return self.linear(name, module, "makes queries or keys: stays linear, as in B-cosification")
        b = self.options.exponent(name, self.depth[name])
        changes: dict[str, Any] = {"b": b, "convention": self.options.convention}
        became = f"B-cos, B={b:g}, convention {self.options.convention}"
        if name == self.stem:
            rule, became = layers.Stem, f"{became}, of six channels"
            changes |= _stem_changes(module, self.options)
        return self.step(name, module, rule, changes, became)

    def linear(self, name: str, module: nn.Module, reason: str) -> bool:
        """What is linear and stays as it is, its bias aside."""
        if self.options.biases == "remove" and isinstance(module, _BIASED) and module.bias is not None:
            return self.step(name, module, layers.Plain, {}, "linear as before")
        self.plan.unchanged[name] = reason
        return True

    def norm(self, name: str, module: nn.Module) -> bool:
        """Norms of torch."""
        if isinstance(module, _BatchNorm):
            return self.batch_norm(name, module)
        rule = next((rule for kind, rule in norms.NORMS.items() if has_forward_of(module, (kind,))), None)
        if rule is None:
            return False
        if rule is norms.InstanceNorm and module.track_running_stats:
            self.plan.unconverted[name] = "an instance norm with running statistics"
            return True
        return self.step(name, module, rule, {}, "held statistics")

    def batch_norm(self, name: str, module: _BatchNorm) -> bool:
        """Batch norms: in evaluation they are affine, with constant statistics."""
        if isinstance(module, own_norms.BatchNorm2d):
            return True
        if not module.track_running_stats:
            self.plan.unconverted[name] = "a batch norm without running statistics mixes samples"
            return True
        remove, affine = self.options.biases == "remove", module.bias is not None
        rule = next((rule for kind, rule in norms.BATCH_NORMS.items() if has_forward_of(module, (kind,))), None)
        if rule is not None and (remove or not affine):
            changes = {"centred": not remove, "about_mean": True} | ({"bias": None} if affine else {})
            return self.step(name, module, rule, changes, "uncentred, without its bias" if remove else "named mean")
        if remove or not affine:
            self.plan.unconverted[name] = "no rule takes the running mean from this class of batch norm"
        elif rule is None:
            return False  # it may do more than normalise
        self.plan.unchanged[name] = "affine in evaluation; bias and running mean are in the budget"
        return True

    def function(self, name: str, module: nn.Module) -> bool:
        """Activations, gated units, pools and attention of torch."""
        if module in self.factors:
            return self.step(name, module, gates.Factor, {}, "a held factor")
        if gates.is_gate(module):
            return self.step(name, module, gates.Gate, {}, "a held gate")
        if has_forward_of(module, gates.FACTORS):
            return self.step(name, module, gates.Factor, {}, "a held factor")
        if has_forward_of(module, (nn.GLU,)):
            return self.step(name, module, gates.GLU, {}, "a held gate")
        if has_forward_of(module, (nn.MultiheadAttention,)):
            removed = ("in_proj_bias", "bias_k", "bias_v") if self.options.biases == "remove" else ()
            changes = {bias: None for bias in removed if getattr(module, bias) is not None}
            return self.step(name, module, MultiheadAttention, changes, "held probabilities")
        for kind, dims in pools.MAX_POOLS.items():
            if has_forward_of(module, (kind,)):
                return self.max_pool(name, module, dims)
        return False

    def max_pool(self, name: str, module: nn.Module, dims: int) -> bool:
        """Max-pools, held or averaged."""
        if self.options.max_pool == "hold":
            if module.return_indices:
                self.plan.unchanged[name] = "a max-pool is linear where it stands"
                return True
            return self.step(name, module, pools.HeldMaxPool, {"dims": dims}, "a held choice")
        dilated = module.dilation not in (1, (1,) * dims)
        if dilated or module.return_indices:
            self.plan.unconverted[name] = "no average pool is dilated or returns indices; it stays a max-pool"
            return True
        return self.step(name, module, pools.AveragePool, {"dims": dims}, "an average pool")

    def rest(self, name: str, module: nn.Module) -> None:
        """Modules with a forward of their own, and what is left of torch's."""
        own = not type(module).forward.__module__.startswith("torch.nn.")
        if own and type(module).forward.__module__.startswith("bcos_kernels."):
            self.plan.unchanged[name] = "a module of bcos_kernels"
        elif own or isinstance(module, _TRANSFORMERS):
            changes: dict[str, Any] = {
                "activations": "gates" if families.gated_children(module) is None else "factors",
            }
            if isinstance(module, _TRANSFORMERS):
                changes["activation_relu_or_gelu"] = 0  # else the fused kernel passes the converted modules by
            if added := [p for p, _ in module.named_parameters(recurse=False) if p in families.ADDITIVE]:
                changes["additive_parameters"] = tuple(added)
            self.step(name, module, OwnForward, changes, "the functions that its forward calls held")
        elif isinstance(module, _NONLINEAR_POOLS) or not _is_linear(module):
            self.plan.unconverted[name] = f"no rule for {type(module).__name__}"
        elif list(module.parameters(recurse=False)):
            self.linear(name, module, "linear as it is; no B-cos layer of this kind")


def _is_linear(module: nn.Module) -> bool:
    kind = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    place = f"{kind.__module__}.{kind.__name__}".removeprefix("torch.nn.modules.")
    return kind is nn.Module or any(place.startswith(prefix) for prefix in _LINEAR)


def _refusal(module: nn.Module) -> str | None:
    """Why a model with this module in it cannot be converted, or None."""
    kinds = families.lineage(module)  # by name: importing these takes seconds
    if "torch._dynamo.eval_frame.OptimizedModule" in kinds or module._compiled_call_impl is not None:
        return "compiled: convert the model first, then compile it"
    if isinstance(module, torch.jit.ScriptModule) or "torch.fx.graph_module.GraphModule" in kinds:
        return "traced or scripted: convert the model that it was made of"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return "lazy: run the model once first"
    if nn.utils.parametrize.is_parametrized(module):
        return "parametrized: torch.nn.utils.parametrize.remove_parametrizations first, or exclude it"
    if "forward" in vars(module):
        return "its forward was replaced on the instance, as hooks of accelerate do: undo that first, or exclude it"
    return None


def _check_stem(stem: str, modules: dict[str, nn.Module], options: Options) -> None:
    weight = modules[stem].weight
    users = [name for name, module in modules.items() if any(p is weight for p in module.parameters(recurse=False))]
    if len(users) > 1:
        raise ValueError(f"the stem's weight is shared by {', '.join(users)}: it cannot be given six channels")
    if not options.selects(stem):
        raise ValueError(f"the stem {stem!r} is excluded")


def _stem_changes(module: nn.Module, options: Options) -> dict[str, Any]:
    assert options.stem is not None and isinstance(module, nn.Conv2d)
    half = module.weight.detach() / 2
    weight = nn.Parameter(torch.cat([half, -half], 1), requires_grad=module.weight.requires_grad)
    return {
        "weight": weight,
        "in_channels": 6,
        "mean": tuple(options.stem.mean),
        "deviation": tuple(options.stem.deviation),
        "subtracts": options.biases == "keep",
    }
