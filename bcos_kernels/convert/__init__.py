"""Models of other libraries made into ours, in place."""

from bcos_kernels.convert.bcosification import bcosify, six_channels, unbcosify
from bcos_kernels.convert.options import Stem
from bcos_kernels.convert.report import Report

__all__ = ["Report", "Stem", "bcosify", "six_channels", "unbcosify"]
