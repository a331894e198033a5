"""The non-key-frame CNN of TWNet: correct the warped context features, then finish the segmentation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vss_ros.methods.blocks.lite import conv_norm_relu
from vss_ros.methods.blocks.u_shape import LAST, UShape

CORRECTIONS = ('attended', 'plain', 'none')


class NonKeyCnn(nn.Module):
    """What still runs of the per-frame CNN when one of its lateral connections has warped features, and CFR.

    Args:
        cnn: the per-frame CNN; what is needed of it is copied.
        layer: 1 or 2, the lateral connection.
        more_heads: 1 to run one head more, from which the spatial features come, at the size of the context
            features; 0 takes the next lateral feature for them, at twice that size.
        correction: `attended`, CFR under RGA; `plain`, CFR alone; or `none`.
    """

    def __init__(self, cnn: UShape, layer: int, more_heads: int = 0, correction: str = 'attended') -> None:
        super().__init__()
        self.layer, self.more_heads, self.corrects = layer, more_heads, correction != 'none'
        self.cnn = cnn.after(layer, more_heads)
        width = cnn.widths[layer - 1]
        if self.corrects:
            self.rectification = Rectification(width, is_attended=correction == 'attended')
        if more_heads:
            self.spatial = conv_norm_relu(cnn.head_widths[LAST - layer], width, 1)

    def start_from(self, cnn: UShape) -> None:
        """Take the weights of the per-frame CNN, which has learnt since it was copied; CFR keeps its own."""
        weights = cnn.state_dict()
        self.cnn.load_state_dict({name: weights[name] for name in self.cnn.state_dict()})

    def forward(
        self, rgb: Tensor, warped: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Correct and finish.

        Args:
            rgb: the current frame in [0, 1], (N, 3, H, W).
            warped: context features of the frame before, warped, (N, c, h, w).
            residual: absolute difference of the current and the warped previous image, (N, 3, h, w), which
                only RGA looks at.
        Returns:
            Corrected context features, scores (N, K, H/4, W/4), and the attention, if there is any,
            (N, 1, h, w) in 0..1.
        """
        encoded = self.cnn.encode(rgb, LAST - self.layer + self.more_heads)
        laterals = self.cnn.laterals(encoded, self.layer)
        features, attention = warped, None
        if self.corrects:
            spatial = self.spatial(encoded[-1]) if self.more_heads else halve(laterals[self.layer + 1])
            features, attention = self.rectification(warped, spatial, residual)
        return features, self.cnn.finish(features, laterals), attention


class Rectification(nn.Module):
    """CFR under RGA: F' = F + A * phi([F, S]), A = sigmoid(psi(R)); alone F' = F + phi([F, S]).

    F are warped context features, S spatial features of the current frame, R its residual. phi starts at
    zero, so that training starts at plain warping.
    """

    def __init__(self, width: int, is_attended: bool = True) -> None:
        super().__init__()
        self.phi = nn.Conv2d(2 * width, width, 3, padding=1)
        self.psi = nn.Conv2d(3, 1, 3, padding=1) if is_attended else None
        for parameter in self.phi.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, warped: Tensor, spatial: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """warped, spatial (N, c, h, w), residual (N, 3, h, w) -> F' (N, c, h, w), A (N, 1, h, w) if any."""
        change = self.phi(torch.cat((warped, spatial), 1))
        if self.psi is None:
            return warped + change, None
        attention = self.psi(residual).sigmoid()
        return warped + attention * change, attention


def halve(maps: Tensor) -> Tensor:
    """Means over 2x2 cells: (N, C, h, w) -> (N, C, h/2, w/2), sides rounded up."""
    return shrink(maps, 2)


def shrink(maps: Tensor, by: int) -> Tensor:
    """Means over squares of cells; those at the far borders count the cells they have."""
    return F.avg_pool2d(maps, by, by, ceil_mode=True, count_include_pad=False)
