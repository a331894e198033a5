"""CFNet, the correction network of DAVSS: new scores from the current image alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.conet import conv_norm_leaky
from vss_ros.methods.blocks.flownet import crop, upsampling_leaky


class CfNet(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> correction cue, class logits (N, K, H/4, W/4), sides rounded up."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = 32  # of the first layer; the others are multiples of it
        self.conv1 = conv_norm_leaky(3, width, 2)
        self.conv2 = conv_norm_leaky(width, 2 * width, 2)
        self.conv3 = conv_norm_leaky(2 * width, 4 * width, 2)
        self.conv3_1 = conv_norm_leaky(4 * width, 4 * width, 1)
        self.conv4 = conv_norm_leaky(4 * width, 8 * width, 2)
        self.conv4_1 = conv_norm_leaky(8 * width, 8 * width, 1)
        self.conv5 = conv_norm_leaky(8 * width, 8 * width, 2)
        self.conv5_1 = conv_norm_leaky(8 * width, 8 * width, 1)
        self.conv6 = conv_norm_leaky(8 * width, 16 * width, 2)
        self.conv6_1 = conv_norm_leaky(16 * width, 16 * width, 1)
        self.deconv5 = upsampling_leaky(16 * width, 8 * width)
        self.deconv4 = upsampling_leaky(16 * width, 4 * width)
        self.deconv3 = upsampling_leaky(12 * width, 2 * width)
        self.deconv2 = upsampling_leaky(6 * width, width)
        self.predict_cc = nn.Conv2d(3 * width, classes, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        skip_4 = self.conv2(self.conv1(rgb))
        skip_8 = self.conv3_1(self.conv3(skip_4))
        skip_16 = self.conv4_1(self.conv4(skip_8))
        skip_32 = self.conv5_1(self.conv5(skip_16))
        features = self.conv6_1(self.conv6(skip_32))

        features = join(skip_32, self.deconv5(features))
        features = join(skip_16, self.deconv4(features))
        features = join(skip_8, self.deconv3(features))
        features = join(skip_4, self.deconv2(features))
        return self.predict_cc(features)


def join(skip: Tensor, features: Tensor) -> Tensor:
    """Put a level of the encoder beside the features of the coarser level."""
    return torch.cat((skip, crop(features, skip)), 1)
