"""MobileNetV1 and V2 (Howard et al.; Sandler et al.) at width 1, without their classifiers."""

from __future__ import annotations

from torch import Tensor, nn

from vss_ros.methods.blocks.lite import conv_norm_relu
from vss_ros.methods.blocks.separable import SeparableConv

V1_WIDTHS = (64, 128, 128, 256, 256, *6 * (512,), 1024, 1024)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# Expansion, channels, blocks, stride of the first of them.
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))


def mobilenet_v1() -> nn.Sequential:
    """Normalised RGB (N, 3, H, W) -> (N, 1024, H/32, W/32) in 14 layers."""
    layers: list[nn.Module] = [conv_norm_relu(3, 32, 3, 2)]
    inputs = 32
    for outputs, stride in zip(V1_WIDTHS, V1_STRIDES, strict=True):
        layers.append(SeparableConv(inputs, outputs, stride, momentum=0.1))
        inputs = outputs
    return nn.Sequential(*layers)


def mobilenet_v2() -> nn.Sequential:
    """Normalised RGB (N, 3, H, W) -> (N, 320, H/32, W/32) in 18 layers, named as in torchvision."""
    layers: list[nn.Module] = [conv_norm_relu6(3, 32, 3, 2)]
    inputs = 32
    for expansion, outputs, blocks, stride in (*V2_STAGES, (6, 320, 1, 1)):
        for number in range(blocks):
            layers.append(InvertedResidual(inputs, outputs, 1 if number else stride, expansion))
            inputs = outputs
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Widen, depthwise 3x3, narrow without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.has_shortcut = inputs == outputs and stride == 1
        self.conv = nn.Sequential(
            *([conv_norm_relu6(inputs, wide, 1)] if expansion > 1 else []),
            conv_norm_relu6(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        features = self.conv(maps)
        return maps + features if self.has_shortcut else features


def conv_norm_relu6(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )
