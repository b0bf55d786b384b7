"""The code of the migration guide does what it says, and its B-cosification path equals that code's layers."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("bcos.modules", reason="the package bcos is not installed: pip install '.[test]'")

import bcos
import torchvision
from bcos.modules import BcosConv2d, norms

from bcos_kernels import explain

PAGE = Path(__file__).parent.parent / "docs" / "migration.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def guide():
    """What the blocks after the first define."""
    namespace = {}
    for number, code in enumerate(BLOCKS[1:]):
        exec(compile(code, f"migration.md block {number + 1}", "exec"), namespace)
    return namespace


class Bcosified(torchvision.models.ResNet):
    """A ResNet with the layers that B-cosification gives it, and its order: classify pixels, then average."""

    def __init__(self):
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)
        self.conv1 = nn.Conv2d(6, 64, 7, 2, 3, bias=False)
        self.fc = nn.Conv2d(512, 7, 1, bias=False)
        self.maxpool = nn.AvgPool2d(3, 2, 1)
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Conv2d):
                    layer = BcosConv2d(child.in_channels, child.out_channels, child.kernel_size, child.stride,
                                       child.padding, b=2)  # fmt: skip
                    layer.linear = child
                    setattr(parent, name, layer)
                elif isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, norms.NoBias(norms.BatchNormUncentered2d)(child.num_features))

    def _forward_impl(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.avgpool(self.fc(x)).flatten(1)


def test_the_first_block_patches_a_model_of_the_zoo(capsys):
    code, image = BLOCKS[0].replace("pretrained=True", "pretrained=False"), torch.rand(1, 3, 64, 64)
    exec(code, {"image": torch.cat([image, 1 - image], 1).requires_grad_()})
    said = re.search(r"# (\d+ layers replaced.*)", code)[1]
    assert capsys.readouterr().out.strip() == said


def test_the_model_of_the_guide_is_explained_to_rounding(guide):
    assert float(guide["found"].error.max()) < 1e-5
    assert guide["found"].prediction.shape == (8,)


def test_a_checkpoint_of_bcosification_computes_and_explains_the_same(guide):
    torch.manual_seed(0)
    theirs = nn.ModuleDict({"model": Bcosified()}).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0.0, 0.3) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.5, 1.5)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    resnet = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)
    ours = guide["from_bcosification"](resnet, theirs.state_dict()).double()
    theirs.double()
    x = torch.randn(2, 6, 64, 64, dtype=torch.float64)
    expected = theirs["model"](x)
    bias = ours[1].logit_bias
    torch.testing.assert_close(ours(x) - bias, expected.detach(), rtol=1e-9, atol=1e-12)
    leaf = x.clone().requires_grad_()
    with bcos.explanation_mode(theirs["model"]):
        weights = torch.autograd.grad(theirs["model"](leaf)[:, 3].sum(), leaf)[0]
    found = explain(ours, x, 3, weights=True)
    torch.testing.assert_close(found.weights, weights, rtol=1e-8, atol=1e-12)
    assert float(found.error.max()) < 1e-12
