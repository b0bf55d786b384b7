"""Models of torchvision, timm and diffusers: the same function with B = 1, and a complete budget with any B."""

import copy
import functools
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from bcos_kernels import Stem, bcosify, completeness, explanation_mode, six_channels, unbcosify


def randomised(model):
    """Weights that let every input and constant matter."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.0 if name.endswith("bias") else 1.0, 0.3)
        elif name.endswith(("pos_embed", "pos_embedding", "token")):
            nn.init.normal_(parameter)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.double().eval()


def resnet():
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.resnet18(num_classes=6)


def vit(**options):
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=6, depth=3, **options
    )  # fmt: skip


def torchvision_vit():
    models = pytest.importorskip("torchvision").models
    return models.VisionTransformer(32, 8, 2, 2, 12, 24, num_classes=6)


def build(name, **options):
    """Any model of a library, small."""
    library, _, name = name.partition("/")
    if library == "timm":
        return pytest.importorskip("timm").create_model(name, num_classes=6, **options)
    return getattr(pytest.importorskip("torchvision").models, name)(num_classes=6, **options)


BUILDERS = {
    "resnet18": resnet,
    "timm vit": vit,
    "timm vit, registers and norms": functools.partial(vit, reg_tokens=2, qk_norm=True, init_values=0.3),
    "torchvision vit": torchvision_vit,
    "torchvision densenet": functools.partial(build, "torchvision/densenet121"),
    "torchvision mobilenet": functools.partial(build, "torchvision/mobilenet_v3_small"),
    "torchvision convnext": functools.partial(build, "torchvision/convnext_tiny"),
    "timm resnet with squeeze": functools.partial(build, "timm/seresnet18"),
    "timm efficientnet": functools.partial(build, "timm/efficientnet_b0"),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_function_stays_and_the_budget_is_complete(name):
    model = randomised(BUILDERS[name]())
    x = torch.randn(2, 3, 32, 32).double()
    expected = model(x).detach()
    report = bcosify(model, b=1)
    assert not report.unconverted
    assert torch.allclose(model(x), expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max()))
    same = completeness(model, x, target=3)
    assert same.error < 1e-10
    assert abs(same.budget["input"]) > 1e-4
    assert set(report.biases) | set(report.constants) == set(same.mass) - {"input"}
    unbcosify(model)
    report = bcosify(model, b=1.3, convention="A", biases="remove")
    bent = completeness(model, x, target=3)
    assert bent.error < 1e-10
    assert set(report.biases) | set(report.constants) == set(bent.mass) - {"input"}
    if not report.biases and not report.constants:
        assert bent.budget["input"] == pytest.approx(1)


def test_a_resnet_without_biases_reads_six_channels_and_explains_all():
    model = randomised(resnet())
    image = torch.rand(2, 3, 32, 32).double()
    report = bcosify(model, stem=Stem(), biases="remove", convention="A")
    assert report.biases == ()
    found = completeness(model, six_channels(image), target=3)
    assert found.error < 1e-10
    assert found.budget["input"] == pytest.approx(1)


@pytest.mark.parametrize("fused", [True, False])
def test_a_timm_attention_is_held_on_both_of_its_paths(fused):
    model = randomised(vit())
    for block in model.blocks:
        block.attn.fused_attn = fused
    x = torch.randn(2, 3, 32, 32).double()
    bcosify(model, b=1)
    assert completeness(model, x).error < 1e-13
    attention, tokens = model.blocks[0].attn, torch.randn(1, 4, 192).double()
    q, k, _ = attention.qkv(tokens).view(1, 4, 3, 3, 64).permute(2, 0, 3, 1, 4)
    probabilities = torch.softmax(q @ k.transpose(2, 3) / 8, -1).detach()
    with explanation_mode():
        found = torch.autograd.functional.jacobian(lambda t: attention(t).sum((0, 1)), tokens)  # [192, 1, 4, 192]
    matrix = attention.qkv.weight[384:].view(3, 64, 192)
    weight = attention.proj.weight.view(192, 3, 64)
    expected = torch.einsum("ohd,hl,hdi->oli", weight, probabilities[0].sum(1), matrix)
    assert torch.allclose(found[:, 0], expected, rtol=1e-10, atol=1e-12)


# The configuration of stabilityai/stable-diffusion-2-1; tests make it narrow.
STABLE_DIFFUSION = {
    "sample_size": 96, "in_channels": 4, "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True,
    "freq_shift": 0, "mid_block_type": "UNetMidBlock2DCrossAttn", "only_cross_attention": False,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-5, "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20), "dual_cross_attention": False, "use_linear_projection": True,
    "upcast_attention": True,
}  # fmt: skip
NARROW = {
    "sample_size": 8, "block_out_channels": (32, 64, 64, 64), "attention_head_dim": (2, 4, 4, 4),
    "cross_attention_dim": 64,
}  # fmt: skip


@functools.cache
def trained_unet():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[test]'")
    torch.manual_seed(0)
    return randomised(diffusers.UNet2DConditionModel(**{**STABLE_DIFFUSION, **NARROW}))


@pytest.fixture
def unet():
    return copy.deepcopy(trained_unet())


@pytest.fixture
def call():
    torch.manual_seed(1)
    inputs = {"sample": torch.randn(2, 4, 8, 8).double(), "encoder_hidden_states": torch.randn(2, 5, 64).double()}
    return inputs, {"timestep": torch.tensor(500), "return_dict": False}


@pytest.mark.parametrize("processor", ["AttnProcessor2_0", "AttnProcessor"])
def test_the_unet_of_stable_diffusion_is_complete_by_name(unet, call, processor):
    from diffusers.models import attention_processor

    unet.set_attn_processor(getattr(attention_processor, processor)())
    inputs, constants = call
    expected = unet(**inputs, **constants)[0].detach()
    report = bcosify(unet, b=1)
    assert not report.unconverted
    assert torch.allclose(unet(**inputs, **constants)[0], expected, rtol=1e-9, atol=1e-12)
    torch.manual_seed(2)
    direction = torch.randn_like(expected)
    found = completeness(unet, inputs, direction, constants=constants)
    assert found.error < 1e-10
    assert sum(found.mass.values()) == pytest.approx(found.explained, rel=1e-10)
    shares = found.grouped({"time": "*.time_emb_proj", "biases": "*.bias"})
    assert set(shares) == {"sample", "encoder_hidden_states", "time", "biases", "rest"}
    assert all(abs(share) > 1e-4 for name, share in shares.items() if name != "rest")
    assert abs(shares["rest"]) < 1e-10
    times = [name for name in found.mass if name.endswith("time_emb_proj")]
    assert len(times) == 22
    assert set(times) == set(report.constants)
    unbcosify(unet)
    bcosify(unet)
    assert completeness(unet, inputs, direction, constants=constants).error < 1e-10


def test_the_unet_without_biases_has_time_alone_beside_its_inputs(unet, call):
    inputs, constants = call
    report = bcosify(unet, biases="remove", convention="A", b=1.2)
    assert all("time_emb" in name for name in report.biases)
    found = completeness(unet, inputs, constants=constants)
    assert found.error < 1e-10
    shares = found.grouped({"time": "*.time_emb_proj", "biases": "*.bias"})
    assert shares["biases"] == 0
    assert abs(shares["rest"]) < 1e-10


def test_the_unet_keeps_its_configuration_and_saves(unet, call, tmp_path):
    inputs, constants = call
    bcosify(unet)
    assert type(unet).__name__ == "UNet2DConditionModel"
    assert unet.config.cross_attention_dim == 64
    expected = unet(**inputs, **constants)[0]
    unet.save_pretrained(tmp_path)
    loaded = type(trained_unet()).from_pretrained(tmp_path, torch_dtype=torch.float64).eval()
    assert type(loaded) is type(trained_unet())
    bcosify(loaded)
    assert torch.allclose(loaded(**inputs, **constants)[0], expected, rtol=1e-10)


def test_the_whole_stable_diffusion_unet_is_planned_on_the_meta_device():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[test]'")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**STABLE_DIFFUSION)
    learned = {name for name, module in unet.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    plain = {name for name in learned if name.endswith(("to_q", "to_k", "time_emb_proj")) or "time_embedding" in name}
    report = bcosify(unet, dry_run=True)
    assert not report.unconverted and not report.refused
    bent = {name for name, change in report.converted.items() if change.became.startswith("B-cos")}
    assert bent == learned - plain
    assert len(report.constants) == 22
    assert report.unchanged["time_embedding.linear_1"] == "computes a constant that the budget names"


def test_attention_outside_torch_is_said(unet):
    class XFormersAttnProcessor:
        pass

    unet.mid_block.attentions[0].transformer_blocks[0].attn1.processor = XFormersAttnProcessor()
    report = bcosify(unet, dry_run=True)
    reason = report.unconverted["mid_block.attentions.0.transformer_blocks.0.attn1"]
    assert "XFormersAttnProcessor computes attention outside torch" in reason


@pytest.mark.parametrize("norm", ["default", "scale_shift"])
def test_time_may_scale_and_shift(norm):
    resnet = pytest.importorskip("diffusers.models.resnet", reason="diffusers is not installed: pip install '.[test]'")
    block = randomised(resnet.ResnetBlock2D(in_channels=32, temb_channels=6, groups=8, time_embedding_norm=norm))
    inputs = {"input_tensor": torch.randn(2, 32, 4, 4).double()}
    bcosify(block)
    found = completeness(block, inputs, constants={"temb": torch.randn(2, 6).double()})
    assert found.error < 1e-12
    assert abs(found.budget["time_emb_proj"]) > 1e-4


@pytest.mark.parametrize("unit", ["GEGLU", "SwiGLU", "GELU", "ApproximateGELU"])
def test_the_gated_units_of_diffusers(unit):
    activations = pytest.importorskip(
        "diffusers.models.activations", reason="diffusers is not installed: pip install '.[test]'"
    )
    module = randomised(getattr(activations, unit)(6, 4))
    bcosify(module)
    assert completeness(module, torch.randn(3, 6).double()).error < 1e-14


@pytest.mark.parametrize("unit", ["GluMlp", "SwiGLU", "SwiGLUPacked"])
def test_the_gated_units_of_timm(unit):
    layers = pytest.importorskip("timm.layers")
    module = randomised(getattr(layers, unit)(6, 8))
    bcosify(module)
    assert completeness(module, torch.randn(3, 6).double()).error < 1e-14


def test_the_example_runs(capsys):
    pytest.importorskip("torchvision")
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[test]'")
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "bcosify_models.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "logit 3: relative error" in printed and "undone: 40 modules" in printed
    assert "converted 481 modules" in printed and "predicted noise: relative error" in printed
