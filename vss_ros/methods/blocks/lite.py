"""The light segmenter of evss-lite and its layers: regular 3x3 convolutions, batch norm and ReLU only.

Depthwise convolutions are slower than their multiply-adds promise, in training and in the CPU
runtimes, so the savings come from narrow maps and an early reduction to 1/4 instead.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.methods.blocks.camera_bytes import take_camera_bytes
from vss_ros.methods.blocks.image import magnified
from vss_ros.methods.blocks.mixed_norm import MixedNorm
from vss_ros.methods.blocks.resize import resize

MIDDLE_GREY = 0.45  # so that zero padding looks like an average pixel; the scale is the norm's job


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    return nn.Sequential(*normed(inputs, outputs, kernel, stride), nn.ReLU(inplace=True))


def normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution without bias, batch norm."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Resize `x` bilinearly to the height and width of `other`."""
    return resize(x, other.shape[2:])


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm_relu(inputs, outputs, 3, stride)
        self.second = nn.Sequential(*normed(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*normed(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def residuals(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A stage of two residual blocks; the first one changes width and resolution."""
    return nn.Sequential(Residual(inputs, outputs, stride), Residual(outputs, outputs))


class Context(nn.Module):
    """Pyramid pooling: the map beside its own averages over 1, 2 and 4 rows of large tiles."""

    def __init__(self, inputs: int, outputs: int, rows: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.rows = rows
        self.entry = conv_norm_relu(inputs, outputs, 1)
        self.levels = nn.ModuleList(conv_norm_relu(outputs, outputs // 4, 1) for _ in rows)
        self.join = conv_norm_relu(outputs + len(rows) * (outputs // 4), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        height, width = x.shape[-2:]
        maps = [x]
        for rows, level in zip(self.rows, self.levels, strict=True):
            # Fixed tiles instead of adaptive pooling: a plain AveragePool node in every runtime.
            tile = (-(-height // rows), -(-width // rows))
            pooled = functional.avg_pool2d(x, tile, tile, ceil_mode=True, count_include_pad=False)
            maps.append(resize_like(level(pooled), x))
        return self.join(torch.cat(maps, 1))


class LiteSegmenter(nn.Module):
    """Image to class scores at 1/4: a narrow residual encoder, context, a top-down decoder.

    Args:
        magnify: how much larger than it is the image is looked at.
    """

    def __init__(
        self,
        classes: int,
        widths: tuple[int, int, int, int] = (32, 64, 128, 192),
        decoder: int = 64,
        magnify: float = 1,
    ) -> None:
        super().__init__()
        width_4, width_8, width_16, width_32 = widths
        self.grey, self.magnify = MIDDLE_GREY, magnify
        self.stem = nn.Sequential(conv_norm_relu(3, width_4, 3, 2), conv_norm_relu(width_4, width_4, 3, 2))
        self.encoder_4 = residuals(width_4, width_4, 1)
        self.encoder_8 = residuals(width_4, width_8, 2)
        self.encoder_16 = residuals(width_8, width_16, 2)
        self.encoder_32 = residuals(width_16, width_32, 2)
        self.context = Context(width_32, decoder)
        self.skip_16 = conv_norm_relu(width_16, decoder, 1)
        self.skip_8 = conv_norm_relu(width_8, decoder, 1)
        self.skip_4 = conv_norm_relu(width_4, decoder, 1)
        self.decoder_16 = conv_norm_relu(decoder, decoder)
        self.decoder_8 = conv_norm_relu(decoder, decoder)
        self.decoder_4 = conv_norm_relu(decoder, decoder)
        self.scores = nn.Conv2d(decoder, classes, 1)

    def mix_norms(self) -> None:
        """Let norms be a `MixedNorm`: the second one, and the first of each block but those at 1/32.

        The very first is left out: its map is the largest, and would cost as much time as all others.
        """
        blocks = (*self.encoder_4, *self.encoder_8, *self.encoder_16)
        for layers in (self.stem[1], *(block.first for block in blocks)):
            layers[1] = MixedNorm(layers[1].num_features)

    def take_camera_bytes(self) -> None:
        """From now on take BGR in [0, 255]: saves two passes over the image where it is exported."""
        take_camera_bytes(self.stem, in_rows=self.magnify == 1)
        self.takes_camera_bytes = True
        self.grey = 255 * MIDDLE_GREY

    def forward(self, rgb: Tensor) -> Tensor:
        """Score every class.

        Args:
            rgb: image in [0, 1], (N, 3, H, W).
        Returns:
            Logits, (N, K, h, w), at a quarter of the image as it is looked at.
        """
        features_4 = self.to_quarter(magnified(rgb, self.magnify))
        return self.from_eighth(self.to_eighth(features_4), features_4)

    def to_quarter(self, rgb: Tensor) -> Tensor:
        """The first stage of the encoder: its map at 1/4, (N, 32, h, w)."""
        return self.encoder_4(self.stem(rgb - self.grey))

    def to_eighth(self, features_4: Tensor) -> Tensor:
        """From the 1/4 features through the encoder and back up the decoder to 1/8, (N, 64, H/8, W/8)."""
        features_8 = self.encoder_8(features_4)
        features_16 = self.encoder_16(features_8)
        x = self.context(self.encoder_32(features_16))
        for skip, decoder, features in (
            (self.skip_16, self.decoder_16, features_16),
            (self.skip_8, self.decoder_8, features_8),
        ):
            detail = skip(features)
            x = decoder(detail + resize_like(x, detail))
        return x

    def from_eighth(self, x: Tensor, features_4: Tensor) -> Tensor:
        """The last stage of the decoder, and the scores."""
        return self.scores(self.decode(x, features_4))

    def decode(self, x: Tensor, features_4: Tensor) -> Tensor:
        """The last stage of the decoder, (N, 64, h, w)."""
        detail = self.skip_4(features_4)
        return self.decoder_4(detail + resize_like(x, detail))
