"""Forward maps, one backward pass and an explicit Jacobian agree; by step, layer and head they sum to the whole."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from references.tiny import NETWORKS, slow_contributions, tiny_pipeline
from safetensors.torch import load_file

from bcos_diffusion.explain import Explanation
from bcos_diffusion.explanation.backward import Pulled, attentions_to_tokens, pull_back
from bcos_diffusion.explanation.breakdown import Breakdown, explain_in_detail
from bcos_diffusion.explanation.breakdown_figure import save_breakdown
from bcos_diffusion.explanation.trace import predict_x_0
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.mode import explanation_mode

PROMPT = "a cat left of broccolis on a blue background"


def pulled(pipeline: BcosDiffusionPipeline, job: Job, **more: Any) -> Pulled:
    return pull_back(
        pipeline.model.unet, job.text, job.first, job.alpha_bar, job.steps, job.guidance, job.update, **more
    )


def some_places(count: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:40]


def detailed(
    negative: str | None = "dog", phrases: tuple[str, ...] = ("blue background",), **options: Any
) -> tuple[Explanation, Breakdown]:
    shape = {name: options.pop(name) for name in ("time_conditioning", "network") if name in options}
    pipeline = tiny_pipeline(**shape)
    job = pipeline.job([PROMPT], [negative], [3], **options)
    return explain_in_detail(pipeline, job, PROMPT, negative, 3, phrases=phrases)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("update", "guidance"), [("homogeneous", 2.5), ("standard", 2.5), ("homogeneous", 1.0)])
def test_forward_and_backward_are_the_jacobian_of_the_run(update: str, guidance: float, network: str) -> None:
    pipeline = tiny_pipeline(size=8, network=network)
    job = pipeline.job(["cat on blue"], ["dog"], [1], steps=2, guidance=guidance, update=update)
    places = some_places(job.first.numel())
    tokens, origin = slow_contributions(pipeline, job, places)
    cotangent = torch.zeros(job.first.numel(), dtype=torch.float64)
    cotangent[places] = 1
    back = pulled(pipeline, job, cotangent=cotangent.view_as(job.first))
    trace = pipeline.trace(job)[0]
    for source, found in zip(trace.sources, trace.tokens, strict=True):
        torch.testing.assert_close(found.flatten()[places], tokens[source.row, source.position], rtol=0, atol=1e-12)
    torch.testing.assert_close(trace.x_T.flatten()[places], origin, rtol=0, atol=1e-12)
    torch.testing.assert_close(back.tokens.sum(0)[0], tokens.sum(2), rtol=0, atol=1e-10)
    torch.testing.assert_close(back.first[0], origin.sum(), rtol=0, atol=1e-10)
    assert len(trace.sources) == (2 if guidance == 1 else 3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_one_backward_pass_has_the_relevance_of_all_tokens_of_all_prompts(time_conditioning: str, network: str) -> None:
    pipeline = tiny_pipeline(time_conditioning=time_conditioning, network=network)
    job = pipeline.job([PROMPT, "dog", "cat on blue"], [None, "cat", None], [1, 2, 3], steps=3)
    back = pulled(pipeline, job)
    for number, trace in enumerate(pipeline.trace(job)):
        torch.testing.assert_close(back.image[number], trace.image, rtol=0, atol=1e-12)
        for source, found in zip(trace.sources, trace.tokens, strict=True):
            relevance = back.tokens[:, number, source.row, source.position].sum()
            torch.testing.assert_close(relevance, found.sum(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(back.first[number], trace.x_T.sum(), rtol=1e-10, atol=1e-10)
    assert back.tokens.count_nonzero() == 3 * sum(len(sources) for sources in job.sources)


def test_memory_of_the_backward_pass_holds_one_step() -> None:
    """The bytes that the graph keeps at once are the same for two steps and for six."""
    pipeline = tiny_pipeline()
    live, peaks = [0], []

    class Kept:
        def __init__(self, tensor: torch.Tensor):
            self.tensor, self.size = tensor, tensor.nbytes
            live[0] += self.size

        def __del__(self) -> None:
            live[0] -= self.size

    for steps in (2, 6):
        peak = [0]

        def pack(tensor: torch.Tensor, peak: list[int] = peak) -> Kept:
            kept = Kept(tensor)
            peak[0] = max(peak[0], live[0])
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            pulled(pipeline, pipeline.job([PROMPT], [None], [1], steps=steps))
        peaks.append(peak[0])
    assert peaks[0] > 0 and peaks[1] == peaks[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"negative": None, "guidance": 1.0}, {"update": "standard"}, {"time_conditioning": "additive"},
     {"size": (16, 24)}, {"network": "dit"}, {"network": "dit", "time_conditioning": "additive", "size": (16, 24)}],
)  # fmt: skip
def test_steps_layers_and_heads_sum_to_the_whole(options: dict[str, Any]) -> None:
    explanation, found = detailed(steps=3, **options)
    words = torch.stack([part.map for part in explanation.words])
    assert found.words == tuple(part.text for part in explanation.words) and "blue background" in found.words
    assert found.timesteps == (999, 666, 332) and len(found.layers) == (3 if "network" in options else 4)
    torch.testing.assert_close(sum(found.layer_maps.values()), words, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.x_t[-1], words, rtol=0, atol=0)
    torch.testing.assert_close(found.x_hat[-1], words, rtol=0, atol=1e-12)  # the last step goes to x_0 itself
    for name in found.layers:
        by_head = found.word_relevance[name]
        assert by_head.shape == (len(words), 3, 2)
        torch.testing.assert_close(by_head.sum((1, 2)), found.layer_maps[name].sum((1, 2, 3)), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.token_relevance[name].sum(0), by_head.sum(0))
    tokens = sum(r.sum((1, 2)) for r in found.token_relevance.values())
    mass = torch.tensor([part.mass for part in explanation.tokens], dtype=torch.float64)
    torch.testing.assert_close(tokens, mass, rtol=0, atol=1e-10)
    silent = [i for i, text in enumerate(found.words) if text in ("a", "left", "of", "on")]
    assert all(not r[silent].any() for r in found.word_relevance.values()) and not found.x_t[:, silent].any()


def test_the_first_step_is_what_one_prediction_says() -> None:
    pipeline = tiny_pipeline(size=8)
    job = pipeline.job(["cat on blue"], [None], [3], steps=3)
    _, found = explain_in_detail(pipeline, job, "cat on blue", None, 3)
    values = job.text.values.clone().requires_grad_()
    text = Conditioning(values, job.text.keys, job.text.mask)
    with explanation_mode():
        x_hat = predict_x_0(
            pipeline.model.unet, text, job.first[None], 999, job.alpha_bar[999], job.guidance, job.update
        )[0, 0]
    places = some_places(x_hat.numel())
    for value, place in zip(x_hat.flatten()[places], places.tolist(), strict=True):
        (gradient,) = torch.autograd.grad(value, values, retain_graph=True)
        expected = (gradient[0] * values[0].detach()).sum(-1)  # [L]
        for word, position in (("cat", 0), ("blue", 2)):
            found_there = found.x_hat[0, found.words.index(word)].flatten()[place]
            torch.testing.assert_close(found_there, expected[position], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "stages"),
    [("unet", ["down.0.0", "down.1.0", "up.1.0", "up.0.0"]), ("dit", ["blocks.0", "blocks.1", "blocks.2"])],
)
def test_attentions_to_tokens_are_those_that_read_values(network: str, stages: list[str]) -> None:
    pipeline = tiny_pipeline(network=network)
    job = pipeline.job(["cat"], [None], [0])
    found = attentions_to_tokens(pipeline.model.unet, job.text, job.first, 999)
    assert list(found) == [f"{name}.tokens.attend" for name in stages]


def test_a_breakdown_is_written_and_read_back(tmp_path: Path) -> None:
    explanation, found = detailed(steps=3)
    files = save_breakdown(explanation, found, tmp_path)
    assert [path.name for path in files] == ["breakdown.png", "breakdown.safetensors", "breakdown.json"]
    tensors = load_file(tmp_path / "breakdown.safetensors")
    assert tensors.keys() == found.tensors().keys()
    assert all(torch.equal(tensors[name], value) for name, value in found.tensors().items())
    said = json.loads((tmp_path / "breakdown.json").read_text(encoding="utf-8"))
    assert said["word_relevance"] == {name: r.tolist() for name, r in found.word_relevance.items()}
    assert said["words"] == list(found.words) and said["timesteps"] == [999, 666, 332]


def test_a_breakdown_is_of_one_picture() -> None:
    pipeline = tiny_pipeline()
    with pytest.raises(ValueError, match="of one picture, the job has 2"):
        explain_in_detail(pipeline, pipeline.job(["cat", "dog"], [None, None], [0, 1]), "cat", None, 0)
