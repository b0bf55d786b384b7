"""Models of other libraries made into ours, in place: ``patch`` those of ``bcos``, ``bcosify`` those of plain torch."""

from bcos_kernels.convert.bcosification import bcosify, six_channels, unbcosify
from bcos_kernels.convert.options import Stem
from bcos_kernels.convert.patch import PatchReport, patch, unpatch
from bcos_kernels.convert.report import Report

__all__ = ["PatchReport", "Report", "Stem", "bcosify", "patch", "six_channels", "unbcosify", "unpatch"]
