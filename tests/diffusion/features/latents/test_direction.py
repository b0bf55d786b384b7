"""What a direction draws: forward-mode derivatives, rows of the Jacobian, and the adjoint of going back."""

import pytest
import torch
from references.around_a_layer import by_forward_mode, x_0_and_features
from references.tiny_dictionary import LAYERS, dictionary_of, tiny_step

from bcos_diffusion.features.latents.direction import AT_ONCE, colours, draw_directions, push
from bcos_diffusion.features.latents.step import features_of, pass_on

KINDS = list(LAYERS)


@pytest.mark.parametrize("kind", KINDS)
def test_directions_are_drawn_as_forward_mode_says(kind: str) -> None:
    step = tiny_step(kind)
    dictionary = dictionary_of(step)
    positions = len(features_of(step))
    drawn = draw_directions(step, dictionary, [3, 9])
    at_one = draw_directions(step, dictionary, [3], position=2)
    torch.testing.assert_close(drawn[1], by_forward_mode(step, dictionary.decoder[9].expand(positions, -1)))
    alone = torch.zeros(positions, dictionary.decoder.shape[1]).double()
    alone[2] = dictionary.decoder[3]
    torch.testing.assert_close(at_one[0], by_forward_mode(step, alone))
    everywhere = sum(draw_directions(step, dictionary, [3], position=p)[0] for p in range(positions))
    torch.testing.assert_close(drawn[0], everywhere)
    assert drawn.abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_pushing_on_is_the_adjoint_of_pulling_back(kind: str) -> None:
    step = tiny_step(kind)
    x_0, features = x_0_and_features(step)
    generator = torch.Generator().manual_seed(5)
    tangents = torch.randn(AT_ONCE + 3, *features.shape[1:], generator=generator).double()
    g = torch.randn(x_0.shape, generator=generator).double()
    (pulled,) = torch.autograd.grad(x_0, features, g, retain_graph=True)
    pushed = push(step, tangents)
    torch.testing.assert_close((pushed * g).sum((1, 2, 3)), (tangents * pulled[0]).sum((1, 2)), rtol=1e-10, atol=1e-12)
    for place in [(0, 3, 7), (5, 0, 15)]:
        (row,) = torch.autograd.grad(x_0[place], features, retain_graph=True)
        torch.testing.assert_close(pushed[(slice(None), *place)], (tangents * row[0]).sum((1, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prediction_stays_as_it_was(kind: str) -> None:
    step = tiny_step(kind)
    prediction, _ = pass_on(step, 1e3 * torch.ones(3, *features_of(step).shape).double())
    torch.testing.assert_close(prediction, x_0_and_features(step)[0].detach(), rtol=1e-9, atol=1e-12)


def test_colours_are_what_pairs_differ_by() -> None:
    one = torch.tensor([1.0, 0.2, 0.0, 0.0, 0.2, 1.0])[:, None, None]
    assert colours(one).flatten().tolist() == [0.5, 0.0, -0.5]
