"""The training terms against slow computations: explicit Jacobians, loops and counts."""

import dataclasses

import pytest
import torch
from references.portions import portion
from torch import Tensor

from bcos_diffusion.diffusion import noise_schedule
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.objective import Objective, denoising_loss, draw_timesteps, drop_words, effect_loss
from bcos_diffusion.text import TextBatch, Tokenizer
from bcos_diffusion.training.draws import draw
from bcos_kernels.mode import explanation_mode

WORDS = ["a", "cat", "dog", "on", "blue", "broccolis"]


def tiny_model(time_conditioning: str = "scale") -> TextToImage:
    torch.manual_seed(0)
    config = UNetConfig(
        size=8, widths=(8, 16), heads=2, text_dim=8, time_dim=8, time_conditioning=time_conditioning,
        self_attention=(False, True), cross_attention=(True, True),
    )  # fmt: skip
    model = TextToImage(config, Tokenizer(WORDS, length=8), text_depth=1).double()
    for name, parameter in model.named_parameters():
        if "time.project" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def noisy(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 6, 8, 8, generator=generator).double(), torch.tensor([30, 400, 900][:n])


def jacobian(model: TextToImage, x_t: Tensor, t: Tensor, batch: TextBatch) -> Tensor:
    """d x̂ / d values under explanation mode, one backward pass per output: ``[N, 6 * H * W, L, D]``."""
    text = model.condition(batch)
    values = text.values.detach().requires_grad_()
    with explanation_mode():
        out = model.unet(x_t, t, Conditioning(values, text.keys, text.mask)).flatten(1)
    # Prompts do not see each other, so the rows of a batch can share a backward pass.
    rows = [torch.autograd.grad(out[:, j].sum(), values, retain_graph=True)[0] for j in range(out.shape[1])]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_the_effect_term_equals_jacobians_and_two_predictions(time_conditioning: str) -> None:
    """Each caption has one content word, so the random choice is known."""
    model = tiny_model(time_conditioning)
    captions = ["a cat on", "broccolis on a", "blue"]
    batch = model.tokenizer.encode(captions)
    x_t, t = noisy(3)
    x_hat = model(x_t, t, batch)
    with torch.no_grad():
        losses = effect_loss(model, x_t, t, batch, x_hat, torch.rand(batch.ids.shape))
        values = model.text.values(batch.ids)
        gaps = []
        for row, word in enumerate(["cat", "broccolis", "blue"]):
            mask = batch.mask.clone()
            for position in range(mask.shape[1]):
                if mask[row, position] and batch.words[row][int(batch.word_index[row, position])] == word:
                    mask[row, position] = False
            without = model(x_t, t, dataclasses.replace(batch, mask=mask))[row]
            chosen = batch.mask[row] & ~mask[row]
            assert chosen.sum() == (3 if word == "broccolis" else 1)
            gaps.append((x_hat[row] - without, chosen))
    linear = jacobian(model, x_t, t, batch)
    for row, (effect, chosen) in enumerate(gaps):
        contribution = sum(linear[row, :, p] @ values[row, p] for p in chosen.nonzero().flatten().tolist())
        direct, complement = (contribution - effect.flatten()).view(2, 3, -1)
        expected = float(((direct - complement) / 2).pow(2).mean())
        assert expected > 0
        assert float(losses[row]) == pytest.approx(expected, rel=1e-5)  # the loss itself is taken in fp32


def test_the_effect_term_chooses_among_all_content_words() -> None:
    model = tiny_model()
    batch = model.tokenizer.encode(["cat on blue"])
    x_t, t = noisy(1)
    x_hat = model(x_t, t, batch)
    with torch.no_grad():
        scores = torch.rand(12, *batch.ids.shape, generator=torch.Generator().manual_seed(0))
        losses = [effect_loss(model, x_t, t, batch, x_hat, score) for score in scores]
    seen = {round(float(loss), 12) for loss in losses}
    assert len(seen) == 2


def test_a_caption_without_content_has_no_effect_term() -> None:
    model = tiny_model()
    x_t, t = noisy(1)
    for batch in (model.tokenizer.encode(["a on"]), model.tokenizer.encode_null(1)):
        loss = effect_loss(model, x_t, t, batch, model(x_t, t, batch), torch.rand(batch.ids.shape))
        assert loss.item() == 0


def test_words_are_dropped_whole_and_as_often_as_asked() -> None:
    tokenizer, n = Tokenizer(WORDS), 4000
    batch = tokenizer.encode(["a cat on broccolis"] * n)
    draws = draw(0, range(n), batch.ids.shape[1], size=1)
    dropped = drop_words(batch, 0.3, 0.2, draws.caption, draws.words)
    assert torch.equal(dropped.ids, batch.ids)
    assert not (dropped.mask & ~batch.mask).any()
    kept = torch.stack([dropped.mask[:, :6].gather(1, torch.full((n, 1), p))[:, 0] for p in range(6)], 1)
    broccolis = kept[:, 3:]
    assert broccolis.any(1).eq(broccolis.all(1)).all() and broccolis.shape[1] == 3
    words = kept[:, :4].double()
    for share in words.mean(0).tolist():  # a word stays with probability 0.7 * 0.8; four standard deviations
        assert share == pytest.approx(0.56, abs=4 * (0.56 * 0.44 / n) ** 0.5)
    empty = 0.3 + 0.7 * 0.2**4
    assert (~kept.any(1)).double().mean().item() == pytest.approx(empty, abs=4 * (empty * (1 - empty) / n) ** 0.5)
    # Given a caption that stays, words go independently of each other.
    stays = words[kept.any(1)]
    assert abs(float(torch.corrcoef(stays[:, :2].T)[0, 1])) < 0.06


def test_dropping_nothing_or_everything() -> None:
    batch = Tokenizer(WORDS).encode(["a cat", "dog"])
    draws = draw(0, range(2), batch.ids.shape[1], size=1)
    assert torch.equal(drop_words(batch, 0.0, 0.0, draws.caption, draws.words).mask, batch.mask)
    assert not drop_words(batch, 1.0, 0.0, draws.caption, draws.words).mask.any()
    assert not drop_words(batch, 0.0, 1.0, draws.caption, draws.words).mask.any()


def test_denoising_loss_is_a_mean_of_squares() -> None:
    a, b = torch.rand(2, 6, 3, 3), torch.rand(2, 6, 3, 3)
    for found, x, y in zip(denoising_loss(a, b), a, b, strict=True):
        slow = sum((float(p) - float(q)) ** 2 for p, q in zip(x.flatten(), y.flatten(), strict=True)) / x.numel()
        assert float(found) == pytest.approx(slow, rel=1e-5)


CAPTIONS = ["cat on blue", "dog", "a cat"]


def test_the_total_is_the_weighted_sum_and_both_terms_train() -> None:
    model = tiny_model()
    plain, tied = (Objective(model, weight).double()(portion(model.tokenizer, CAPTIONS, 8)) for weight in (0.0, 2.0))
    assert set(plain) == {"total", "denoising"} and plain["total"] is plain["denoising"]
    assert torch.equal(plain["denoising"], tied["denoising"])
    assert tied["total"].item() == pytest.approx(tied["denoising"].item() + 2 * tied["effect"].item())
    tied["effect"].backward()
    table = model.text.value_table.weight.grad
    assert table is not None and table.abs().sum() > 0


@pytest.mark.parametrize("predicts", ["x_0", "noise"])
def test_a_model_is_asked_for_what_it_predicts(predicts: str) -> None:
    """Against the forward process written out, sample by sample."""
    model = tiny_model()
    model.unet.predicts = predicts
    whole = portion(model.tokenizer, CAPTIONS, 8)
    found = Objective(model).double()(whole)["denoising"].item()
    alpha_bar, gaps = noise_schedule().double(), []
    with torch.no_grad():
        for row in range(3):
            rgb, noise = whole.images[row].double() / 255, whole.noise[row].double()
            x_0, epsilon = torch.cat([rgb, 1 - rgb]), torch.cat([noise, -noise])
            a = alpha_bar[whole.t[row]].sqrt()
            x_t = a * x_0 + (1 - a) * 0.5 + (1 - a**2).sqrt() * 0.5 * epsilon
            predicted = model(x_t[None], whole.t[row : row + 1], whole.text[row : row + 1])[0]
            gaps.append((predicted - (x_0 if predicts == "x_0" else epsilon)).pow(2).mean())
    assert found == pytest.approx(float(torch.stack(gaps).mean()), rel=1e-5)


def test_timesteps_are_drawn_from_the_density_that_is_promised() -> None:
    """0.4 · u(s) + 0.6 · 2s: the share below s is 0.4 s + 0.6 s²."""
    t = draw_timesteps(torch.rand(200_000, 2, generator=torch.Generator().manual_seed(0)), 1000)
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() == 999
    for share in (0.1, 0.3, 0.5, 0.8, 0.95):
        below = (t < 1000 * share).double().mean().item()
        assert below == pytest.approx(0.4 * share + 0.6 * share**2, abs=0.005)
