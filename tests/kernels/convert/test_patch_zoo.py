"""Every entry of the zoo of the package ``bcos``, patched: outputs, gradients, explanations, state_dict, and back."""

import copy

import pytest
import torch

pytest.importorskip("bcos.models.pretrained", reason="the package bcos is not installed: pip install '.[test]'")
pytest.importorskip("einops", reason="the package einops, which bcos's vision transformers need, is not installed")

from references import bcos_zoo as zoo

from bcos_kernels import explanation_mode, patch, unpatch

ROUNDING = 2e-5
"""Relative error that up to two hundred layers may have beyond the library's own, in the L2 norm."""
SPREAD = 4
"""How far apart the errors of two equally good runs lie: the library's own, from image to image, by up to this much."""


def cases():
    for entry in zoo.entries():
        if zoo.can_be_narrowed(entry):
            yield pytest.param(entry, True, id=f"{entry}-narrow")
        yield pytest.param(entry, False, id=entry, marks=[] if "_ti_" in entry else [pytest.mark.slow])


@pytest.mark.parametrize("entry, narrow", list(cases()))
def test_an_entry_stays_what_it_is(entry, narrow):
    model = zoo.build(entry, narrow)
    x, kinds = zoo.images(entry, 2, 64), [type(module) for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    theirs = zoo.passes(model, x, zoo.library_mode(model))
    again = zoo.passes(model, x.contiguous(memory_format=torch.channels_last), zoo.library_mode(model))
    model.double()
    truth = zoo.passes(model, x.double(), zoo.library_mode(model))
    model.float()
    model.load_state_dict(state)
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}

    report = patch(model)
    assert not report.left, str(report)
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == places
    for mode in (zoo.library_mode(model), explanation_mode):
        ours = zoo.passes(model, x, mode)
        for name, value in truth.items():
            allowed = SPREAD * max(zoo.error(run[name], value) for run in (theirs, again)) + ROUNDING
            assert zoo.error(ours[name], value) <= allowed, name

    def erase():
        for value in model.state_dict().values():
            value.zero_()

    erase()
    model.load_state_dict(state)  # theirs into ours
    saved = copy.deepcopy(model.state_dict())
    assert len(unpatch(model)) == len(report.replaced)
    assert [type(module) for module in model.modules()] == kinds
    erase()
    model.load_state_dict(saved)  # and ours into theirs
    torch.testing.assert_close(model(x), theirs["output"], rtol=0, atol=0)
