"""Convolution, norm, activation."""

from __future__ import annotations

from torch import Tensor, nn


class Cba(nn.Module):
    """Convolution of odd size without bias, batch norm, activation; keeps height and width."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        activation: nn.Module,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, momentum=momentum)
        self.activation = activation

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(maps)))
