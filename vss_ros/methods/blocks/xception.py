"""The modified aligned Xception of DeepLabv3+, the key frame encoder of DAVSS; output stride 16."""

from __future__ import annotations

from math import sqrt

from torch import Tensor, nn

from vss_ros.methods.blocks.separable import RELEASED_MOMENTUM, SeparableConv

EPS = 1e-3  # of all norms in here
MIDDLE_UNITS = 16


def norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, EPS, RELEASED_MOMENTUM)


class Unit(nn.Module):
    """Three separable convolutions and what is added to them; the last one has the stride.

    Args:
        widths: outputs of the three.
        skip: what is added: a strided 1x1 convolution of the input (`conv`), the input itself (`sum`) or
            nothing (`none`).
        relu_first: see `SeparableConv`.
    """

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, int, int],
        stride: int = 1,
        skip: str = 'conv',
        dilation: int = 1,
        relu_first: bool = True,
    ) -> None:
        super().__init__()
        self.skip = skip
        first, second, last = widths

        def separable(inputs: int, outputs: int, stride: int = 1) -> SeparableConv:
            return SeparableConv(inputs, outputs, stride, dilation, relu_first, eps=EPS)

        self.separable_conv1 = separable(inputs, first)
        self.separable_conv2 = separable(first, second)
        self.separable_conv3 = separable(second, last, stride)
        if skip == 'conv':
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, last, 1, stride, bias=False), norm(last))

    def before_stride(self, maps: Tensor) -> Tensor:
        """The first two convolutions, still at the resolution of `maps`."""
        return self.separable_conv2(self.separable_conv1(maps))

    def finish(self, maps: Tensor, features: Tensor) -> Tensor:
        """The third convolution of `features`, and what is added of the unit's input `maps`."""
        features = self.separable_conv3(features)
        if self.skip == 'none':
            return features
        return features + (self.shortcut(maps) if self.skip == 'conv' else maps)

    def forward(self, maps: Tensor) -> Tensor:
        return self.finish(maps, self.before_stride(maps))


class Stem(nn.Module):
    """A 3x3 convolution under the name that published files give it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        nn.init.normal_(self.conv.weight, std=sqrt(2 / (9 * outputs)))

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv(maps)


class Xception(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> features (N, 256, H/4, W/4) and (N, 2048, H/16, W/16)."""

    widths = (256, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.entry_flow_conv1_1 = Stem(3, 32, 2)
        self.entry_flow_bn1_1 = norm(32)
        self.entry_flow_conv1_2 = Stem(32, 64, 1)
        self.entry_flow_bn1_2 = norm(64)
        self.entry_flow_block1_unit_1 = Unit(64, (128, 128, 128), 2)
        self.entry_flow_block2_unit_1 = Unit(128, (256, 256, 256), 2)
        self.entry_flow_block3_unit_1 = Unit(256, (728, 728, 728), 2)
        self._middle = [f'middle_flow_block1_unit_{i + 1}' for i in range(MIDDLE_UNITS)]
        for name in self._middle:
            self.add_module(name, Unit(728, (728, 728, 728), skip='sum'))
        self.exit_flow_block1_unit_1 = Unit(728, (728, 1024, 1024))
        self.exit_flow_block2_unit_1 = Unit(1024, (1536, 1536, 2048), 1, 'none', 2, relu_first=False)
        for module in self.modules():
            if isinstance(module, Unit):
                initialise(module)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.entry_flow_bn1_1(self.entry_flow_conv1_1(rgb)).relu()
        maps = self.entry_flow_bn1_2(self.entry_flow_conv1_2(maps)).relu()
        maps = self.entry_flow_block1_unit_1(maps)
        features_4 = self.entry_flow_block2_unit_1.before_stride(maps)
        maps = self.entry_flow_block2_unit_1.finish(maps, features_4)
        maps = self.entry_flow_block3_unit_1(maps)
        for name in self._middle:
            maps = self.get_submodule(name)(maps)
        return features_4, self.exit_flow_block2_unit_1(self.exit_flow_block1_unit_1(maps))


def initialise(unit: Unit) -> None:
    for module in unit.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.09)
