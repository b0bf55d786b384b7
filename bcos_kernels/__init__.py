"""Neural networks that explain themselves exactly: B-cos layers, fused kernels and the explanation."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version

from bcos_kernels import functional
from bcos_kernels.attribution import (
    Explanation,
    PointingGame,
    contribution_image,
    explain,
    plot_contribution_map,
    pointing_game,
    rgba_image,
    write_png,
)
from bcos_kernels.convert import PatchReport, Report, Stem, bcosify, patch, six_channels, unbcosify, unpatch
from bcos_kernels.explanation import (
    Completeness,
    completeness,
    contributions,
    explanation_mode,
    is_explaining,
    maps,
    stacked,
)
from bcos_kernels.modules.conv import BcosConv1d, BcosConv2d
from bcos_kernels.modules.linear import BcosLinear
from bcos_kernels.ops.attention_relevance import operators as _attention_operators  # noqa: F401  # registers them
from bcos_kernels.ops.attention_relevance.op import attention_relevance, attention_relevance_maps
from bcos_kernels.ops.contribution import operators as _contribution_operators  # noqa: F401  # registers it
from bcos_kernels.ops.contribution.op import contribution
from bcos_kernels.ops.norms import operators as _norm_operators  # noqa: F401  # registers them
from bcos_kernels.relevance import RelevanceRecord, record_relevance

try:
    __version__ = _version("bcos-kernels")
except PackageNotFoundError:  # a source folder that was never installed
    __version__ = "0+unknown"

__all__ = [
    "BcosConv1d",
    "BcosConv2d",
    "BcosLinear",
    "Completeness",
    "Explanation",
    "PatchReport",
    "PointingGame",
    "RelevanceRecord",
    "Report",
    "Stem",
    "__version__",
    "attention_relevance",
    "attention_relevance_maps",
    "bcosify",
    "completeness",
    "contribution",
    "contribution_image",
    "contributions",
    "explain",
    "explanation_mode",
    "functional",
    "is_explaining",
    "maps",
    "patch",
    "plot_contribution_map",
    "pointing_game",
    "record_relevance",
    "rgba_image",
    "six_channels",
    "stacked",
    "unbcosify",
    "unpatch",
    "write_png",
]
