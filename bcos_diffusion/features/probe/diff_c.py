"""Diff-C: four convolutions over spatial features, then a mean and a linear layer (Revelio, Table 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DiffC(nn.Module):
    """Logits ``[N, classes]`` of spatial features ``[N, channels, H, W]`` of any size, 1 x 1 included.

    The table: 3 x 3 convolutions of strides 1, 2, 2, 2 to ``width`` channels (the paper's is 1024), global average
    pooling, one linear layer. What the table leaves out is as in the authors' code: features are normalised per channel
    without learned parameters, each convolution pads by 1 and is followed by batch normalisation and ReLU, and nothing
    is dropped out (the rate of their published command). Raises ValueError for sizes under 1.
    """

    def __init__(self, channels: int, classes: int, width: int = 1024):
        super().__init__()
        if min(channels, classes, width) < 1:
            raise ValueError(f"channels, classes and width must be at least 1, got {channels}, {classes} and {width}")
        self.channels = channels
        self.norm_in = nn.BatchNorm2d(channels, affine=False)
        layers: list[nn.Module] = []
        for number, stride in enumerate((1, 2, 2, 2)):
            layers += [
                nn.Conv2d(width if number else channels, width, 3, stride, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.classify = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Raises ValueError for features of other channels."""
        if features.ndim != 4 or features.shape[1] != self.channels:
            raise ValueError(f"features must be [N, {self.channels}, H, W], got {list(features.shape)}")
        return self.classify(self.convolutions(self.norm_in(features)).mean((2, 3)))

    @torch.no_grad()
    def predict(self, features: Tensor, batch: int = 256) -> Tensor:
        """The likeliest class of each image, ``batch`` at a time, as in evaluation: int64 ``[N]`` on the CPU."""
        return torch.cat([logits.argmax(1).cpu() for logits in self.evaluate(features, batch)])

    @torch.no_grad()
    def evaluate(self, features: Tensor, batch: int = 256) -> list[Tensor]:
        """Logits of ``batch`` images at a time with the running statistics; the mode is left as it was."""
        was_training = self.training
        self.eval()
        try:
            return [self(part.float()) for part in features.split(batch)]
        finally:
            self.train(was_training)
