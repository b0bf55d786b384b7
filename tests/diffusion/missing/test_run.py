"""A run in pieces is the run in one: same picture, same contributions, with or without parts at its end."""

from pathlib import Path

import torch

from bcos_diffusion.explain import explain
from bcos_diffusion.missing.run import Run
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPTS = ["cat left of two broccolis", "dog blue"]


def _run(model: Path, traced: bool = True, update: str = "homogeneous") -> tuple[BcosDiffusionPipeline, Run]:
    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    return pipeline, Run(pipeline, pipeline.job(PROMPTS, [None, None], [3, 4], steps=5, update=update), traced)


def test_a_run_in_pieces_is_the_whole_run(model: Path) -> None:
    for update in ("homogeneous", "standard"):
        pipeline, run = _run(model, update=update)
        run.advance(2)
        assert run.number == 2 and not torch.equal(run.images, pipeline.generate(PROMPTS, seed=3, steps=5))
        run.advance(5)
        assert torch.allclose(run.images, pipeline.generate(PROMPTS, seed=3, steps=5, update=update), atol=1e-5)
        for picture, prompt in enumerate(PROMPTS):
            words = [part.map for part in explain(pipeline, prompt, seed=3 + picture, steps=5, update=update).words]
            assert torch.allclose(run.words(picture), torch.stack(words), atol=1e-5)


def test_what_is_left_without_parts_is_the_same_picture(model: Path) -> None:
    pipeline, run = _run(model, update="standard")
    run.advance(2)
    parts = run.parts
    assert run.evaluations == 4 and parts == 4 * len(run.state)
    assert torch.allclose(run.finish(), pipeline.generate(PROMPTS, seed=3, steps=5, update="standard"), atol=1e-5)
    assert run.evaluations == 10 and run.parts == parts + 6
    _, plain = _run(model, traced=False)
    plain.advance(5)
    assert plain.parts == plain.evaluations == 10
    assert torch.allclose(plain.images, pipeline.generate(PROMPTS, seed=3, steps=5), atol=1e-6)
