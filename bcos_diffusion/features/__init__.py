"""What a layer of a diffusion model represents at a timestep (Revelio): its features, read from many images.

``load_subject`` takes our models and diffusers'; a ``Plan`` says what to read; ``extract`` writes it to a folder, which
``FeatureStore`` reads a part at a time.
"""

from bcos_diffusion.features.extract import extract
from bcos_diffusion.features.generated import GeneratedImages
from bcos_diffusion.features.images import FolderImages, SceneImages
from bcos_diffusion.features.plan import Layout, Plan, lay_out
from bcos_diffusion.features.reading import capture, read
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.subject import Subject, load_subject, subject_of

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
