"""DMNet, the distortion map network of DAVSS."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vss_ros.methods.blocks.separable import RELEASED_MOMENTUM, SeparableConv


class DmNet(nn.Module):
    """Two pictures, RGB in [0, 1], (N, 3, h, w) each -> how much they differ, (N, 1, h, w) in [0, 1].

    Both go through the same few layers; where the features point in opposite directions the map is 1.
    It is the same whichever comes first.
    """

    def __init__(self, momentum: float = RELEASED_MOMENTUM) -> None:
        super().__init__()
        self.conv1 = block(3, 4, momentum)
        self.conv2 = block(4, 8, momentum)
        self.conv3 = block(8, 16, momentum)
        self.conv4 = nn.Conv2d(16, 16, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def features(self, rgb: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, 16, h, w)."""
        return self.conv4(self.conv3(self.conv2(self.conv1(rgb))))

    def forward(self, propagated: Tensor, current: Tensor) -> Tensor:
        # Rounding in lower precisions would be larger than the differences of unmoved pictures.
        first, second = self.features(propagated).float(), self.features(current).float()
        similarity = F.cosine_similarity(first, second, dim=1)[:, None]  # DAVSS eq. 1
        return (0.5 - 0.5 * similarity).clamp(0, 1)  # DAVSS eq. 2


def block(inputs: int, outputs: int, momentum: float) -> nn.Sequential:
    """A separable convolution and, as in the release, norm and ReLU once more."""
    separable = SeparableConv(inputs, outputs, bias=True, momentum=momentum)
    return nn.Sequential(separable, nn.BatchNorm2d(outputs), nn.ReLU())
