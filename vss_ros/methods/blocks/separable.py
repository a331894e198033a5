"""Depthwise separable convolution as in DeepLabv3+: both halves with a norm of their own."""

from __future__ import annotations

from torch import Tensor, nn

RELEASED_MOMENTUM = 0.0003  # of the running statistics; far too slow for short trainings


class SeparableConv(nn.Module):
    """Depthwise 3x3, norm, pointwise 1x1, norm: (N, inputs, h, w) -> (N, outputs, h/s, w/s), s = stride.

    Args:
        relu_first: one ReLU before everything, none after the norms (Xception's middle), instead of a
            ReLU after each norm.
        eps, momentum: of both norms.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        dilation: int = 1,
        relu_first: bool = False,
        bias: bool = False,
        eps: float = 1e-5,
        momentum: float = RELEASED_MOMENTUM,
    ) -> None:
        super().__init__()
        self.relu_first = relu_first
        self.depthwise = nn.Conv2d(
            inputs, inputs, 3, stride, padding=dilation, dilation=dilation, groups=inputs, bias=bias
        )
        self.depthwise_bn = nn.BatchNorm2d(inputs, eps, momentum)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=bias)
        self.pointwise_bn = nn.BatchNorm2d(outputs, eps, momentum)

    def forward(self, maps: Tensor) -> Tensor:
        if self.relu_first:
            return self.pointwise_bn(self.pointwise(self.depthwise_bn(self.depthwise(maps.relu()))))
        spread = self.depthwise_bn(self.depthwise(maps)).relu()
        return self.pointwise_bn(self.pointwise(spread)).relu()
