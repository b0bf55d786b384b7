"""Who takes part in a sweep: the models, what each of them can be asked, and the untrained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bcos_diffusion.features import conditions
from bcos_diffusion.features.images import SceneImages
from bcos_diffusion.features.layers import find, own_layers
from bcos_diffusion.features.pipeline_subject import PipelineSubject
from bcos_diffusion.features.subject import Subject, load_subject
from bcos_diffusion.features.sweep.plan import UNTRAINED, SweepPlan
from bcos_diffusion.pipeline import BcosDiffusionPipeline

UNET, TRANSFORMER, OTHER = "U-Net", "transformer", "another network"


@dataclass(frozen=True)
class Field:
    """By label: the models and, where it can be had, the untrained network.

    layers, conditionings: what is read of each; kinds: of models, their ``family`` and ``form``; left_out: sentences,
    what cannot be measured.
    """

    images: SceneImages
    subjects: Mapping[str, Subject]
    layers: Mapping[str, tuple[str, ...]]
    conditionings: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, Mapping[str, str]]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return self.images.size


def enter(plan: SweepPlan) -> Field:
    """Load the models of a plan, and see what each can be asked.

    Raises ValueError for models of different sizes, for a layer that no model has and for a first conditioning that one
    of them cannot read; and what :func:`~bcos_diffusion.features.load_subject` raises.
    """
    subjects: dict[str, Subject] = {model.label: load_subject(model.source) for model in plan.models}
    sizes = {label: subject.size for label, subject in subjects.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise ValueError(f"models of one sweep must read images of one size, these differ: {told}")
    there = {name: module for subject in subjects.values() for name, module in subject.layers.items()}
    if plan.layers:
        find(there, plan.layers)
    first = plan.models[0].label
    layers = {label: own_layers(subject, plan.layers) for label, subject in subjects.items()}
    images = SceneImages(subjects[first].size, "test", seed=plan.seed)
    left_out: list[str] = []
    conditionings = {label: _readable(label, subject, images, plan, left_out) for label, subject in subjects.items()}
    kinds = {label: {"family": _family(subject), "form": _form(subject)} for label, subject in subjects.items()}
    baseline = _untrained(subjects[first], plan.seed)
    if baseline is None:
        left_out.append(
            f"{first} is not one of our models, so there is no network as it was before training: the baseline of"
            " random features is left out"
        )
    else:
        subjects[UNTRAINED], layers[UNTRAINED] = baseline, layers[first]
        conditionings[UNTRAINED] = plan.conditionings[:1]
    return Field(images, subjects, layers, conditionings, kinds, tuple(left_out))


def _readable(
    label: str, subject: Subject, images: SceneImages, plan: SweepPlan, left_out: list[str]
) -> tuple[str, ...]:
    """The conditionings that a model reads. Raises ValueError where the first is not among them."""
    found = []
    for conditioning in plan.conditionings:
        try:
            conditions.check(subject, images, conditioning)
            if conditioning == "targeted":
                subject.condition(conditions.texts(subject, images, conditioning, [0], images.batch([0])))
            found.append(conditioning)
        except ValueError as error:
            if conditioning == plan.conditionings[0]:
                raise
            left_out.append(f"{label} under the conditioning {conditioning!r}: {error}")
    return tuple(found)


def _family(subject: Subject) -> str:
    if "up_ft0" in subject.layers:
        return UNET
    return TRANSFORMER if "block_0" in subject.layers else OTHER


def _form(subject: Subject) -> str:
    """Whether what a network predicts is exactly the sum of what its inputs gave."""
    exact = isinstance(subject, PipelineSubject) and subject.pipeline.model.unet.explainable
    return "B-cos" if exact else "ordinary"


def _untrained(subject: Subject, seed: int) -> Subject | None:
    """A subject with the weights that training starts from: random features of the same shape. Ours alone have one."""
    if not isinstance(subject, PipelineSubject):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = subject.pipeline.model.twin().to(subject.pipeline.dtype)
    return PipelineSubject(BcosDiffusionPipeline(model, subject.pipeline.defaults, UNTRAINED))
