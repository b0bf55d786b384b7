"""Words are forgotten alone and the same ones each time; pictures of them are judged as all others are."""

import pytest
import torch

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.words import OBJECTS, SINGULAR
from bcos_diffusion.missing.induced import SHARE, can_forget, forget, induced, prompts_with
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.scenes import nouns, vocabulary
from bcos_diffusion.text import Tokenizer

CONFIG = UNetConfig(size=16, patch=2, widths=(16, 24), self_attention=(False, True), cross_attention=(True, True))


@pytest.fixture(scope="module")
def pipeline() -> BcosDiffusionPipeline:
    torch.manual_seed(0)
    model = TextToImage(CONFIG, Tokenizer(vocabulary(32)), text_depth=1)
    return BcosDiffusionPipeline(model, Defaults(5, 1.5, "homogeneous"), "tiny")


def test_a_quarter_of_the_nouns_is_forgotten_and_nothing_else(pipeline: BcosDiffusionPipeline) -> None:
    forgetful, forgotten = forget(pipeline)
    assert 0.8 * SHARE < len(forgotten) / len(nouns(32)) <= SHARE and forgotten <= {*nouns(32)}
    assert forget(pipeline)[1] == forgotten != forget(pipeline, seed=1)[1]
    before, after = pipeline.model.state_dict(), forgetful.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"text.value_table.weight", "text.key_table.weight"}
    tokenizer = pipeline.model.tokenizer
    for word in vocabulary(32):
        batch = tokenizer.encode([word])
        ids = batch.ids[batch.mask]
        same = torch.equal(before["text.value_table.weight"][ids], after["text.value_table.weight"][ids])
        assert same == (SINGULAR.get(word) not in forgotten), word
    lengths = [table["text.value_table.weight"].norm(dim=1) for table in (before, after)]
    assert lengths[1][lengths[0] != lengths[1]] == pytest.approx(float(lengths[0][1:].median()), rel=1e-4)


def test_prompts_name_what_was_forgotten_and_what_was_not() -> None:
    forgotten = frozenset({"cat", "owl", "bus", "key", "tree", "lion", "frog", "star"})
    found = prompts_with(forgotten, 10, 32)
    assert len(found) == 10 and found == prompts_with(forgotten, 12, 32)[:10]
    for one in found:
        known = [SINGULAR[word] in forgotten for word in one.prompt.split() if word in OBJECTS]
        assert any(known) and not all(known)


def test_natural_misses_are_left_out(pipeline: BcosDiffusionPipeline) -> None:
    forgotten = forget(pipeline)[1]
    segmenter = Segmenter.load()
    for one in induced(pipeline, segmenter, 6):
        named = [SINGULAR[one.seen.words[i]] for i in one.seen.named]
        assert any(noun in forgotten for noun in named)
        assert all(drawn or noun in forgotten for noun, drawn in zip(named, one.drawn, strict=True))
        assert one.seen.exact.shape[1] == one.seen.heat.shape[1] == len(named) == len(one.areas[-1])


def test_a_model_of_other_words_cannot_forget(pipeline: BcosDiffusionPipeline) -> None:
    plain = TextToImage(UNetConfig(**{**CONFIG.__dict__, "layers": "vanilla", "time_conditioning": "additive"}),
                        Tokenizer(["cat", "dog"]), text_depth=1)  # fmt: skip
    ordinary = BcosDiffusionPipeline(plain, pipeline.defaults, "ordinary")
    assert can_forget(pipeline) and not can_forget(ordinary)
    with pytest.raises(ValueError, match="values of its own can forget"):
        forget(ordinary)
