"""The glance of evss-lite at a propagated frame, and the correction of warped scores by what it saw.

Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.methods.blocks.camera_bytes import replace_first
from vss_ros.methods.blocks.lite import LiteSegmenter, conv_norm_relu, normed, resize_like


class Glimpse(NamedTuple):
    """What a glance saw."""

    scores: Tensor  # logits (N, K, H/s, W/s), s = 2 x `Glance.step`: 1/8, 1/6 or 1/4 of the image, rounded up
    features: Tensor  # the decoder's, (N, 64, H/s, W/s)
    detail: Tensor  # the stem's, (N, 32), at 1/4 of the image or 1/3


GLANCES = {'half': 4, 'two_thirds': 3, 'full': 2}  # pixels that the first convolution steps


class Glance(LiteSegmenter):
    """The segmenter at half or two thirds of its size, for as much less work, or behind a large one at full.

    To be coarser, its first convolution takes longer steps over the image as it is, so that it still sees
    what is two pixels wide; all behind it works on maps that are smaller.

    It may be told the scores that were warped to the frame. So it need not name again what has only moved,
    and small or cut off things keep their class, while what it sees itself decides where the two do not go
    together.
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
        """Take the weights of a segmenter, its steps made longer; warped scores have no say yet."""
        weights = segmenter.state_dict()
        weights['stem.0.0.weight'] = stretched(weights['stem.0.0.weight'], self.step)
        self.load_state_dict({**self.state_dict(), **weights})
        nn.init.zeros_(self.remember.weight)

    def forward(self, rgb: Tensor, warped: Tensor | None = None) -> Glimpse:  # type: ignore[override]
        """Glance at an image.

        Args:
            rgb: in [0, 1], (N, 3, H, W).
            warped: scores warped to it, (N, K, any height, any width).
        """
        first, second = self.stem
        entered = first(rgb - self.grey)
        x = second(entered)
        detail = x if self.step == GLANCES['full'] else entered
        if warped is not None:
            warped_resized = resize_like(warped, x)
            shares = (warped_resized - warped_resized.amax(1, keepdim=True)).exp()
            x = x + self.remember(shares / shares.sum(1, keepdim=True))
        features_4 = self.encoder_4(x)
        features = self.decode(self.to_eighth(features_4), features_4)
        return Glimpse(self.scores(features), features, detail)


# READS[step][row of pixels][row of the kernel]: how much a kernel made for the reduced image, two of whose
# pixels are `step` pixels here, reads of each row of the full image.
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
    rows, columns = kernel.shape[2:]
    longer = nn.Conv2d(first.in_channels, first.out_channels, (rows, columns), step, 2, bias=False)
    with torch.no_grad():
        longer.weight.copy_(kernel)
    return longer


def stretched(kernel: Tensor, step: int) -> Tensor:
    """A kernel (C', C, 3, 3) for a reduced image as one for the image itself, of 3, 5 or 6 rows."""
    reads = torch.tensor(READS[step], dtype=kernel.dtype, device=kernel.device)
    return reads @ kernel @ reads.T


class LiteCorrection(nn.Module):
    """Two opinions, the scores warped to a frame and a glance at it, to edge logits and updated scores.

    The glance is of now, but coarser. Where the two differ, maps at 1/4, and those of the glance, tell from
    what the image shows there which one to believe; and they mend outlines, which are lost where it was
    reduced. CoNet has no such second opinion; Accel (Jain et al. 2019) has, but fuses it everywhere alike.
    Widths are multiples of 16, the block of channels that ONNX Runtime computes at once on a CPU; others cost
    as much as the next one.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        width_4, width_8 = 16, 32
        self.opinions_8 = conv_norm_relu(2 * classes + Glance.width_8, width_8, 1)
        self.compare_8 = conv_norm_relu(width_8, width_4)
        self.opinions_4 = nn.Sequential(*normed(2 * classes, width_4, 1))
        self.detail_4 = nn.Sequential(*normed(Glance.width_4, width_4, 1))
        self.compare_4 = nn.Sequential(conv_norm_relu(width_4, width_4), conv_norm_relu(width_4, width_4))
        self.heads = nn.Conv2d(width_4, 2 + classes, 1)
        for tensor in self.heads.parameters():
            nn.init.zeros_(tensor[2:])  # knows nothing yet: the update is what the glance saw

    def forward(self, glance: Glimpse, warped: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh them.

        Args:
            glance: at this frame.
            warped: scores warped along the flow, (N, K, h, w).
        Returns:
            Edge logits (N, 2, h, w), updated scores (N, K, h, w).
        """
        fresh = resize_like(glance.scores, warped)
        warped_resized = resize_like(warped, glance.scores)
        x = self.compare_8(self.opinions_8(torch.cat((glance.scores, warped_resized, glance.features), 1)))
        opinions = self.opinions_4(torch.cat((fresh, warped), 1))
        x = resize_like(x, warped) + opinions + resize_like(self.detail_4(glance.detail), warped)
        edge, change = self.heads(self.compare_4(functional.relu(x))).split((2, warped.shape[1]), 1)
        return edge, fresh + change
