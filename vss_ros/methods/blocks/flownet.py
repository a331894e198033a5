"""The narrow FlowNet2-S of EVSS: optical flow at a quarter of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOW_SCALE = 5.0  # FlowNet's 20 pixels, in cells of the 1/4 map
FEATURES = 74  # channels that the finest flow is predicted from


def conv_leaky(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution with bias, leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU(0.1))


def upsampling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """To twice the size, and two rows and columns more, see `crop`."""
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, bias=False)


def upsampling_leaky(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(upsampling(inputs, outputs), nn.LeakyReLU(0.1))


def crop(maps: Tensor, like: Tensor) -> Tensor:
    """Cut what a transposed convolution gives (2n + 2 rows) to the rows and columns of `like`."""
    height, width = like.shape[2:]
    return maps[:, :, 1 : 1 + height, 1 : 1 + width]


class FlowNet(nn.Module):
    """Current and previous RGB in [0, 1], (N, 3, H, W) each -> flow (N, 2, H/4, W/4).

    The flow is in cells of the 1/4 map and points from the current frame to where the same thing
    was in the previous one: channel 0 to the right, channel 1 down.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_leaky(6, 24, 7, 2)
        self.conv2 = conv_leaky(24, 48, 5, 2)
        self.conv3 = conv_leaky(48, 96, 5, 2)
        self.conv3_1 = conv_leaky(96, 96, 3, 1)
        self.conv4 = conv_leaky(96, 192, 3, 2)
        self.conv4_1 = conv_leaky(192, 192, 3, 1)
        self.conv5 = conv_leaky(192, 192, 3, 2)
        self.conv5_1 = conv_leaky(192, 192, 3, 1)
        self.conv6 = conv_leaky(192, 384, 3, 2)
        self.conv6_1 = conv_leaky(384, 384, 3, 1)

        self.deconv5 = upsampling_leaky(384, 192)
        self.deconv4 = upsampling_leaky(386, 96)
        self.deconv3 = upsampling_leaky(290, 48)
        self.deconv2 = upsampling_leaky(146, 24)

        self.predict_flow6 = nn.Conv2d(384, 2, 3, padding=1)
        self.predict_flow5 = nn.Conv2d(386, 2, 3, padding=1)
        self.predict_flow4 = nn.Conv2d(290, 2, 3, padding=1)
        self.predict_flow3 = nn.Conv2d(146, 2, 3, padding=1)
        self.predict_flow2 = nn.Conv2d(FEATURES, 2, 3, padding=1)

        self.upsample_flow6to5 = upsampling(2, 2)
        self.upsample_flow5to4 = upsampling(2, 2)
        self.upsample_flow4to3 = upsampling(2, 2)
        self.upsample_flow3to2 = upsampling(2, 2)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        return self.flow_of(self.features(current, previous))

    def flow_of(self, features: Tensor) -> Tensor:
        return FLOW_SCALE * self.predict_flow2(features)

    def features(self, current: Tensor, previous: Tensor) -> Tensor:
        """What the finest flow is predicted from, (N, FEATURES, H/4, W/4)."""
        skip_4 = self.conv2(self.conv1(torch.cat((current, previous), 1)))
        skip_8 = self.conv3_1(self.conv3(skip_4))
        skip_16 = self.conv4_1(self.conv4(skip_8))
        skip_32 = self.conv5_1(self.conv5(skip_16))
        features = self.conv6_1(self.conv6(skip_32))

        flow = self.upsample_flow6to5(self.predict_flow6(features))
        features = refine(skip_32, self.deconv5(features), flow)
        flow = self.upsample_flow5to4(self.predict_flow5(features))
        features = refine(skip_16, self.deconv4(features), flow)
        flow = self.upsample_flow4to3(self.predict_flow4(features))
        features = refine(skip_8, self.deconv3(features), flow)
        flow = self.upsample_flow3to2(self.predict_flow3(features))
        return refine(skip_4, self.deconv2(features), flow)


def refine(skip: Tensor, features: Tensor, flow: Tensor) -> Tensor:
    """Join a level of the encoder with the features and the flow of the coarser level."""
    return torch.cat((skip, crop(features, skip), crop(flow, skip)), 1)
