"""Subjects: what images, noise and texts become, and what a folder holds."""

import json
from pathlib import Path

import pytest
import torch
from references.diffusers_models import LetterEncoder, Letters, tiny_dit, tiny_unet, tiny_vae

from bcos_diffusion.diffusion import add_noise, noise_schedule, paired_noise
from bcos_diffusion.encoding import encode
from bcos_diffusion.features import load_subject, read
from bcos_diffusion.features.diffusers_subject import DiTSubject, UNetSubject
from bcos_diffusion.features.pipeline_subject import PipelineSubject


def test_our_images_are_noised_each_by_its_own_seed(model: Path) -> None:
    subject = load_subject(model)
    assert isinstance(subject, PipelineSubject) and subject.size == 24 and subject.timesteps == 1000
    images = torch.rand(2, 3, 24, 24)
    x_t = subject.noise(subject.encode(images), 400, [7, 8])
    for row, seed in enumerate((7, 8)):
        noise = paired_noise((1, 6, 24, 24), torch.Generator().manual_seed(seed))
        expected = add_noise(encode(images[row : row + 1]), torch.tensor([400]), noise, subject.pipeline.alpha_bar)
        torch.testing.assert_close(x_t[row : row + 1], expected)
    assert not subject.condition(["", ""]).mask.any()
    with pytest.raises(ValueError, match="unknown word"):
        subject.condition(["zyzzyva"])


def test_latents_are_the_mode_of_the_vae_and_noise_follows_the_schedule() -> None:
    vae, alphas = tiny_vae(), noise_schedule()
    subject = UNetSubject(tiny_unet(4), alphas, vae, LetterEncoder(), Letters())
    assert subject.size == 32
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        mean = vae.encode(2 * images - 1).latent_dist.mean
    x_0 = subject.encode(images)
    torch.testing.assert_close(x_0, mean * vae.config.scaling_factor)
    noise = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    expected = alphas[100].sqrt() * x_0 + (1 - alphas[100]).sqrt() * noise
    torch.testing.assert_close(subject.noise(x_0, 100, [3, 4]), expected)
    said = subject.condition(["ab", "", "ab"])
    assert said.shape == (3, 8, 12) and torch.equal(said[0], said[2]) and not torch.equal(said[0], said[1])
    with pytest.raises(ValueError, match="at most 8"):
        subject.condition(["abcdefgh"])


def test_classes_are_the_texts_of_dit() -> None:
    subject = DiTSubject(tiny_dit(), noise_schedule(), names={"cat": 2})
    assert subject.condition(["", "cat", "4"]).tolist() == [5, 2, 4]
    for wrong in ("5", "dog", "-1"):
        with pytest.raises(ValueError, match="a number from 0 to 4, or a name such as cat"):
            subject.condition([wrong])


def test_networks_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match="4 channels, which images only have after a VAE"):
        UNetSubject(tiny_unet(4), noise_schedule())
    with pytest.raises(ValueError, match="no text encoder"):
        UNetSubject(tiny_unet(), noise_schedule()).condition(["", "a cat"])
    with pytest.raises(ValueError, match="come together"):
        UNetSubject(tiny_unet(), noise_schedule(), tokenizer=Letters())


def features(subject: object, layer: str) -> torch.Tensor:
    images = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)[..., : subject.size, : subject.size]
    x_t = subject.noise(subject.encode(images), 20, [0])
    return read(subject, x_t, 20, subject.condition([""]), [layer])[layer]


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_bare_networks_load_from_their_folders(kind: str, tmp_path: Path) -> None:
    network = tiny_unet() if kind == "unet" else tiny_dit()
    network.save_pretrained(tmp_path / "net")
    subject = load_subject(tmp_path / "net")
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = noise_schedule() if kind == "unet" else torch.cumprod(1 - betas, 0)
    expected = (UNetSubject if kind == "unet" else DiTSubject)(network, alphas)
    torch.testing.assert_close(features(subject, "bottleneck"), features(expected, "bottleneck"))
    assert subject.settings()["weights"] == expected.settings()["weights"] and subject.name == "net"


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_pipelines_load_part_by_part(kind: str, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    network, vae = (tiny_unet(4) if kind == "unet" else tiny_dit(4)), tiny_vae()
    part = "unet" if kind == "unet" else "transformer"
    network.save_pretrained(tmp_path / part)
    vae.save_pretrained(tmp_path / "vae")
    scheduler = DDIMScheduler(beta_start=0.001, beta_end=0.02, beta_schedule="scaled_linear")
    scheduler.save_pretrained(tmp_path / "scheduler")
    parts = {name: ["diffusers", "Any"] for name in (part, "vae", "scheduler")}
    index = {"_class_name": "Any", **parts, "text_encoder": [None, None], "id2label": {"1": "tench, Tinca tinca"}}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    subject = load_subject(tmp_path)
    expected = (UNetSubject if kind == "unet" else DiTSubject)(network, scheduler.alphas_cumprod, vae)
    torch.testing.assert_close(features(subject, "bottleneck"), features(expected, "bottleneck"))
    if kind == "dit":
        assert subject.condition(["Tinca tinca", "tench"]).tolist() == [1, 1]


def test_stable_diffusion_reads_its_clip(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from diffusers import DDIMScheduler

    tiny_unet(4).save_pretrained(tmp_path / "unet")
    tiny_vae().save_pretrained(tmp_path / "vae")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    sizes = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"bos_token_id": 53, "eos_token_id": 54}
    config = transformers.CLIPTextConfig(vocab_size=600, max_position_embeddings=16, **sizes, **marks)
    torch.manual_seed(3)
    encoder = transformers.CLIPTextModel(config).eval()
    encoder.save_pretrained(tmp_path / "text_encoder")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: i for i, token in enumerate([*letters, "ab</w>", "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    tokenizer = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=16
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    parts = {name: ["any", "Any"] for name in ("unet", "vae", "scheduler", "text_encoder", "tokenizer")}
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    subject = load_subject(tmp_path)
    ids = tokenizer(["a cab"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    assert ids[0, :2].tolist() == [53, 26] and ids[0, -1] == 54
    with torch.no_grad():
        torch.testing.assert_close(subject.condition(["a cab"]), encoder(ids).last_hidden_state)


def test_folders_of_anything_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no model that is known"):
        load_subject(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ValueError, match="holds a VQModel"):
        load_subject(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(ValueError, match="holds no readable UNet2DConditionModel"):
        load_subject(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a model"):
        load_subject(tmp_path / "nothing" / "here")
