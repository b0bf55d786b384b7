"""Bring networks that exist to our layers: those of the ``bcos`` library by :func:`patch`."""

from bcos_kernels.convert.patch import PatchReport, patch, unpatch

__all__ = ["PatchReport", "patch", "unpatch"]
