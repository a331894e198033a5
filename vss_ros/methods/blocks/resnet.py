"""ResNet-18 without its classifier (He et al.)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, h, w) -> (N, outputs, h/s, w/s), s = stride."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        features = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(features + self.downsample(maps))


class ResNet18(nn.Module):
    """Normalised RGB (N, 3, H, W) -> 64, 128, 256 and 512 features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512))

    def features(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features_4 = self.to_quarter(rgb)
        features_8 = self.layer2(features_4)
        features_16 = self.layer3(features_8)
        return features_4, features_8, features_16, self.layer4(features_16)

    def to_quarter(self, rgb: Tensor) -> Tensor:
        return self.layer1(self.maxpool(F.relu(self.bn1(self.conv1(rgb)))))


def resnet18() -> nn.Sequential:
    """The same layers in a row, under the same names: normalised RGB (N, 3, H, W) -> (N, 512, H/32, W/32)."""
    network = ResNet18()
    layers = dict(network.named_children())
    stem = {'conv1': layers.pop('conv1'), 'bn1': layers.pop('bn1'), 'relu': nn.ReLU()}
    return nn.Sequential(OrderedDict({**stem, **layers}))
