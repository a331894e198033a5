"""PSPNet on ResNet-50 with output stride 8, under the names of its public files (MMSegmentation)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.image import Normalise
from vss_ros.methods.blocks.pooling import PoolToGrid
from vss_ros.methods.blocks.resize import resize

WIDTH = 512  # of the features
GRIDS = (1, 2, 3, 6)  # of the pyramid, rows and columns
DROPPED = 0.1  # of the features, in training


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut: (N, inputs, h, w) -> (N, 4 width, h/s, w/s)."""

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        features = self.bn1(self.conv1(maps)).relu()
        features = self.bn2(self.conv2(features)).relu()
        return (self.bn3(self.conv3(features)) + self.downsample(maps)).relu()


class DilatedResNet50(nn.Module):
    """Normalised RGB (N, 3, H, W) -> features (N, 1024, H/8, W/8) and (N, 2048, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.stem = nn.Sequential(*layers)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = stage(64, 64, 3)
        self.layer2 = stage(256, 128, 4, stride=2)
        self.layer3 = stage(512, 256, 6, dilation=2)
        self.layer4 = stage(1024, 512, 3, dilation=4)

    def forward(self, normalised: Tensor) -> tuple[Tensor, Tensor]:
        features_4 = self.layer1(self.pool(self.stem(normalised)))
        middle = self.layer3(self.layer2(features_4))
        return middle, self.layer4(middle)


def stage(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Blocks of one width; the first one has the stride, and half of the dilation."""
    first = Bottleneck(inputs, width, stride, max(1, dilation // 2))
    rest = (Bottleneck(4 * width, width, dilation=dilation) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; keeps height and width."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


class PspHead(nn.Module):
    """Pyramid pooling: (N, 2048, h, w) -> features (N, 512, h, w); and the classifier behind it."""

    def __init__(self, classes: int, inputs: int = 2048) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(PoolToGrid(grid), conv_norm_relu(inputs, WIDTH, 1)) for grid in GRIDS
        )
        self.bottleneck = conv_norm_relu(inputs + len(GRIDS) * WIDTH, WIDTH, 3)
        self.conv_seg = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, maps: Tensor) -> Tensor:
        size = maps.shape[2:]
        levels = [resize(level(maps), size) for level in self.psp_modules]
        return self.bottleneck(torch.cat((maps, *levels), 1))


class AuxiliaryHead(nn.Module):
    """Class logits from the features before the last stage; only training looks at them."""

    def __init__(self, classes: int, inputs: int = 1024, width: int = 256) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_norm_relu(inputs, width, 3))
        self.dropout = nn.Dropout2d(DROPPED)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv_seg(self.dropout(self.convs(maps)))


class PspNet(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> class logits (N, K, H/8, W/8), by way of its features."""

    width = WIDTH
    entries = ('features', 'classify')
    classifier = ('decode_head.conv_seg',)  # the part that is trained behind STF and MAR

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.backbone = DilatedResNet50()
        self.decode_head = PspHead(classes)
        self.auxiliary_head = AuxiliaryHead(classes)
        self.dropout = nn.Dropout2d(DROPPED)

    def features(self, rgb: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, H, W) -> features (N, 512, H/8, W/8), none of them negative."""
        return self.decode_head(self.backbone(self.normalise(rgb))[1])

    def classify(self, refined: Tensor, features: Tensor | None = None) -> Tensor:
        """Features (N, 512, h, w), refined or not -> class logits (N, K, h, w).

        What else was seen in that frame, its `features`, is of no use here; see `LiteFeatures`.
        """
        return self.decode_head.conv_seg(self.dropout(refined))

    def forward(self, rgb: Tensor) -> Tensor:
        return self.classify(self.features(rgb))

    def with_auxiliary(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and those of the auxiliary head, both (N, K, H/8, W/8), for training."""
        middle, last = self.backbone(self.normalise(rgb))
        return self.classify(self.decode_head(last)), self.auxiliary_head(middle)
