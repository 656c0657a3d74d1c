"""The image classifiers of the paper: MNISTNET and its variants, the NOS-RL ConvNet, ResNets for small images.

Each maps images, [N, C, H, W] or flattened for MNISTNET, to logits, [N, classes].
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

__all__ = ["MNISTNETS", "RESNETS", "ResNet", "convnet", "mnistnet_module", "resnet"]

MNISTNETS: dict[str, tuple[tuple[int, ...], type[nn.Module]]] = {
    "mnistnet": ((20,), nn.Sigmoid),
    "mnistnet-2layer": ((20, 20), nn.Sigmoid),
    "mnistnet-big": ((40,), nn.Sigmoid),
    "mnistnet-relu": ((20,), nn.ReLU),
}
"""Hidden widths and activation by name."""


def mnistnet_module(name: str = "mnistnet", classes: int = 10) -> nn.Module:
    """784 inputs, the hidden layers in :data:`MNISTNETS`, and a linear head.

    Source: Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS 2016.
    """
    hidden, activation = MNISTNETS[name]
    widths = (784, *hidden)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def convnet(channels: int = 3, size: int = 32, classes: int = 10, width: int = 32) -> nn.Module:
    """Two 3 x 3 convolutions (32 and 64 filters; ReLU, batch norm, pooling) and a hidden layer of 1024 units.

    4.2M parameters for 32 x 32 images. Source: Bello et al., "Neural optimizer search with reinforcement learning",
    ICML 2017.

    Args:
        channels: C.
        size: H = W, divisible by 4.
        classes: Number of logits.
        width: Filters of the first convolution; the other layers scale with it.
    """
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(2 * width), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2 * width * (size // 4) ** 2, 32 * width), nn.ReLU()),
        nn.Linear(32 * width, classes),
    )


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """relu(shortcut(x) + body(x)).

    The body has two 3 x 3 convolutions. As a bottleneck it has 1 x 1, 3 x 3 and 1 x 1, the last four times as wide.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            parts = [_normed(inputs, width, 1), nn.ReLU(), _normed(width, width, 3, stride), nn.ReLU()]
            self.body = nn.Sequential(*parts, _normed(width, outputs, 1))
        else:
            self.body = nn.Sequential(_normed(inputs, width, 3, stride), nn.ReLU(), _normed(width, width, 3))
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else _normed(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return torch.relu(self.shortcut(x) + self.body(x))


class ResNet(nn.Module):
    """A residual network for small images: its stem is one 3 x 3 convolution without pooling.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.

    Args:
        blocks: Number of blocks in each of the four stages, of widths 64, 128, 256, 512.
        bottleneck: Whether blocks have three layers.
        channels: Channels of the images.
        classes: Number of logits.
        width: Filters of the stem; the other layers scale with it.
    """

    def __init__(
        self, blocks: tuple[int, ...], bottleneck: bool, channels: int = 3, classes: int = 10, width: int = 64
    ) -> None:
        super().__init__()
        inputs, stages = width, []
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            for index in range(count):
                stages.append(_Block(inputs, inner, 2 if stage and not index else 1, bottleneck))
                inputs = 4 * inner if bottleneck else inner
        self.stem = nn.Sequential(_normed(channels, width, 3), nn.ReLU())
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, C, H, W] to logits [N, classes]."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


RESNETS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Blocks per stage, and whether they are bottlenecks, by name."""


def resnet(name: str, channels: int = 3, width: int = 64) -> ResNet:
    """ResNet-18, -34 or -50, by name in :data:`RESNETS`; 11.2M, 21.3M and 23.5M parameters for ten classes."""
    return ResNet(*RESNETS[name], channels=channels, width=width)
