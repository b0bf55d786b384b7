"""What a layer of a diffusion model represents at a timestep (Revelio): its features, read from many images.

``load_subject`` takes our models and diffusers'; a ``Plan`` says what to read; ``extract`` writes it to a folder, which
``FeatureStore`` reads a part at a time. Names are loaded when they are first asked for, so that the command says what
it can do before torch is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bcos_diffusion.features.extraction import extract
    from bcos_diffusion.features.generated import GeneratedImages
    from bcos_diffusion.features.images import FolderImages, SceneImages
    from bcos_diffusion.features.plan import Layout, Plan, lay_out
    from bcos_diffusion.features.reading import capture, read
    from bcos_diffusion.features.store import FeatureStore
    from bcos_diffusion.features.subject import Subject, load_subject, subject_of
else:
    _HOMES = {
        "extract": "extraction", "GeneratedImages": "generated", "FolderImages": "images", "SceneImages": "images",
        "Layout": "plan", "Plan": "plan", "lay_out": "plan", "capture": "reading", "read": "reading",
        "FeatureStore": "store", "Subject": "subject", "load_subject": "subject", "subject_of": "subject",
    }  # fmt: skip

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "FeatureStore",
    "FolderImages",
    "GeneratedImages",
    "Layout",
    "Plan",
    "SceneImages",
    "Subject",
    "capture",
    "extract",
    "lay_out",
    "load_subject",
    "read",
    "subject_of",
]
