"""The light networks of evss-lite: regular 3x3 convolutions, batch norm and ReLU only.

Depthwise convolutions are slower than their multiply-adds promise, in training and in the CPU
runtimes, so the savings come from narrow maps and an early reduction to 1/4 instead.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.methods.blocks.image import magnified
from vss_ros.methods.blocks.resize import resize

MIDDLE_GREY = 0.45  # so that zero padding looks like an average pixel; the scale is the norm's job


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    return nn.Sequential(*_normed(inputs, outputs, kernel, stride), nn.ReLU(inplace=True))


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Resize `x` bilinearly to the height and width of `other`."""
    return resize(x, other.shape[2:])


def take_camera_bytes(stem: nn.Module, in_rows: bool = True) -> None:
    """Change the first convolution from RGB in [0, 1] to BGR in [0, 255], for the same result.

    Args:
        in_rows: what it takes was made of a camera's rows just before, see `CameraConvolution`.
    """
    replace_first(stem, CameraConvolution if in_rows else _of_camera_bytes)


def _of_camera_bytes(first: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / 255)
    return first


def replace_first(stem: nn.Module, change: Callable[[nn.Conv2d], nn.Conv2d]) -> None:
    """Put what `change` makes of the first convolution into its place."""
    name, first = next(
        (name, module) for name, module in stem.named_modules() if isinstance(module, nn.Conv2d)
    )
    parent, _, attribute = name.rpartition('.')
    setattr(stem.get_submodule(parent), attribute, change(first))


class CameraConvolution(nn.Conv2d):
    """A first convolution from RGB in [0, 1] as one from BGR in [0, 255], in the order the camera gives.

    A camera's rows are BGR, BGR, ...: one channel three times as wide, over which a kernel of three times the
    width takes steps of three times the length. Planes, (N, 3, H, W), are taken as before, but where they
    were made of such rows the two transpositions cancel in an exported graph: a pass over the image less.
    """

    def __init__(self, first: nn.Conv2d) -> None:
        (rows, columns), (down, right) = first.kernel_size, first.stride
        (above, left) = (int(padding) for padding in first.padding)
        super().__init__(
            1,
            first.out_channels,
            (rows, 3 * columns),
            (down, 3 * right),
            (above, 3 * left),
            bias=first.bias is not None,
        )
        with torch.no_grad():
            self.weight.copy_((first.weight.flip(1) / 255).permute(0, 2, 3, 1).reshape_as(self.weight))
            if self.bias is not None and first.bias is not None:
                self.bias.copy_(first.bias)

    def forward(self, bgr: Tensor) -> Tensor:
        count, _, height, width = bgr.shape
        return super().forward(bgr.permute(0, 2, 3, 1).reshape(count, 1, height, 3 * width))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = nn.Sequential(*_normed(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normed(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def residuals(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    """A stage of `blocks` residual blocks; the first one changes width and resolution."""
    rest = (Residual(outputs, outputs) for _ in range(blocks - 1))
    return nn.Sequential(Residual(inputs, outputs, stride), *rest)


class Context(nn.Module):
    """Pyramid pooling: the map beside its own averages over 1, 2 and 4 rows of large tiles."""

    def __init__(self, inputs: int, outputs: int, rows: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.rows = rows
        self.entry = convolution(inputs, outputs, 1)
        self.levels = nn.ModuleList(convolution(outputs, outputs // 4, 1) for _ in rows)
        self.join = convolution(outputs + len(rows) * (outputs // 4), outputs, 1)

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
        self.stem = nn.Sequential(convolution(3, width_4, 3, 2), convolution(width_4, width_4, 3, 2))
        self.encoder_4 = residuals(width_4, width_4, 2, 1)
        self.encoder_8 = residuals(width_4, width_8, 2, 2)
        self.encoder_16 = residuals(width_8, width_16, 2, 2)
        self.encoder_32 = residuals(width_16, width_32, 2, 2)
        self.context = Context(width_32, decoder)
        self.skip_16 = convolution(width_16, decoder, 1)
        self.skip_8 = convolution(width_8, decoder, 1)
        self.skip_4 = convolution(width_4, decoder, 1)
        self.decoder_16 = convolution(decoder, decoder)
        self.decoder_8 = convolution(decoder, decoder)
        self.decoder_4 = convolution(decoder, decoder)
        self.scores = nn.Conv2d(decoder, classes, 1)

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
        """All from there to the last stage of the decoder: its map at 1/8, (N, 64, H/8, W/8)."""
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


class Glimpse(NamedTuple):
    """What a glance saw."""

    scores: Tensor  # logits (N, K), one of each two steps of the first convolution
    features: Tensor  # the decoder's, (N, 64), as large as the scores
    detail: Tensor  # the stem's, (N, 32), at 1/4 of the image or 1/3


GLANCES = {'half': 4, 'two_thirds': 3, 'full': 2}  # pixels that the first convolution steps


class Glance(LiteSegmenter):
    """The segmenter at half or two thirds of its size, for as much less work, or behind a large one at full.

    To be coarser, its first convolution takes longer steps over the image as it is, so that it still sees
    what is two pixels wide; all behind it works on maps that are smaller.

    It may be told what was carried to the frame. So it need not name again what has only moved, and small or
    cut off things keep their class, while what it sees itself decides where the two do not go together.
    """

    width_4, width_8 = 32, 64  # channels of what it sees
    optional = ('remember.weight',)  # where it begins as a segmenter

    def __init__(self, classes: int, size: str = 'half') -> None:
        super().__init__(classes)
        self.step = GLANCES[size]
        replace_first(self.stem, lambda first: stepping(first, self.step))
        self.remember = nn.Conv2d(classes, self.width_4, 3, padding=1, bias=False)
        nn.init.zeros_(self.remember.weight)

    def begin_as(self, segmenter: LiteSegmenter) -> None:
        """Take the weights of a segmenter, its steps made longer; what is carried has no say yet."""
        weights = segmenter.state_dict()
        weights['stem.0.0.weight'] = stretched(weights['stem.0.0.weight'], self.step)
        self.load_state_dict({**self.state_dict(), **weights})
        nn.init.zeros_(self.remember.weight)

    def forward(self, rgb: Tensor, carried: Tensor | None = None) -> Glimpse:  # type: ignore[override]
        """Glance at an image.

        Args:
            rgb: in [0, 1], (N, 3, H, W).
            carried: scores carried to it, (N, K, any height, any width).
        """
        first, second = self.stem
        entered = first(rgb - self.grey)
        x = second(entered)
        detail = x if self.step == GLANCES['full'] else entered
        if carried is not None:
            carried = resize_like(carried, x)
            shares = (carried - carried.amax(1, keepdim=True)).exp()
            x = x + self.remember(shares / shares.sum(1, keepdim=True))
        features_4 = self.encoder_4(x)
        features = self.decode(self.to_eighth(features_4), features_4)
        return Glimpse(self.scores(features), features, detail)


# By rows of pixels, how much of each one the three rows of a kernel read that sees the image reduced so that
# its steps of two are steps of so many pixels.
READS = {
    2: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    3: [[0.25, 0, 0], [0.75, 0, 0], [0, 0.75, 0], [0, 0.25, 0.25], [0, 0, 0.75]],  # bilinearly, to two thirds
    4: [[0.5, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0.5, 0], [0, 0, 0.5], [0, 0, 0.5]],  # means of 2 x 2
}


def stepping(first: nn.Conv2d, step: int) -> nn.Conv2d:
    """A 3x3 convolution in steps of 2, without bias, as one in longer steps that sees the image as it is."""
    if step == first.stride[0]:
        return first
    kernel = stretched(first.weight.detach(), step)
    longer = nn.Conv2d(first.in_channels, first.out_channels, kernel.shape[2:], step, 2, bias=False)  # type: ignore[arg-type]
    with torch.no_grad():
        longer.weight.copy_(kernel)
    return longer


def stretched(kernel: Tensor, step: int) -> Tensor:
    """A kernel (C', C, 3, 3) for a reduced image as one for the image itself, of 3, 5 or 6 rows."""
    reads = torch.tensor(READS[step], dtype=kernel.dtype, device=kernel.device)
    return reads @ kernel @ reads.T


class LiteCorrection(nn.Module):
    """Two opinions, the scores carried to a frame and a glance at it, to edge logits and updated scores.

    The glance is of now, but coarser. Where the two differ, maps at 1/4, and those of the glance, tell from
    what the image shows there which one to believe; and they mend outlines, which are lost where it was
    reduced. CoNet has no such second opinion; Accel (Jain et al. 2019) has, but fuses it everywhere alike.
    Widths are multiples of 16, the block of channels that ONNX Runtime computes at once on a CPU; others cost
    as much as the next one.
    """

    def __init__(self, classes: int, widths: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        width_4, width_8 = widths
        self.opinions_8 = convolution(2 * classes + Glance.width_8, width_8, 1)
        self.compare_8 = convolution(width_8, width_4)
        self.opinions_4 = nn.Sequential(*_normed(2 * classes, width_4, 1))
        self.detail_4 = nn.Sequential(*_normed(Glance.width_4, width_4, 1))
        self.compare_4 = nn.Sequential(convolution(width_4, width_4), convolution(width_4, width_4))
        self.heads = nn.Conv2d(width_4, 2 + classes, 1)
        for tensor in self.heads.parameters():
            nn.init.zeros_(tensor[2:])  # knows nothing yet: the update is what the glance saw

    def forward(self, glance: Glimpse, warped: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh them.

        Args:
            glance: at this frame.
            warped: scores carried along the flow, (N, K, h, w).
        Returns:
            Edge logits (N, 2, h, w), updated scores (N, K, h, w).
        """
        fresh = resize_like(glance.scores, warped)
        carried = resize_like(warped, glance.scores)
        x = self.compare_8(self.opinions_8(torch.cat((glance.scores, carried, glance.features), 1)))
        opinions = self.opinions_4(torch.cat((fresh, warped), 1))
        x = resize_like(x, warped) + opinions + resize_like(self.detail_4(glance.detail), warped)
        edge, change = self.heads(self.compare_4(functional.relu(x))).split((2, warped.shape[1]), 1)
        return edge, fresh + change
