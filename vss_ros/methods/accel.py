"""Accel: a corrective fusion network for efficient semantic segmentation on video (Jain et al.).

Two branches meet on a propagated frame. The reference branch warps what the key frame left along the optical
flow; the update branch, a smaller network, segments the current frame. A 1x1 convolution over the scores of
both fuses them.
Departures: the reference branch carries scores at 1/4, not features, as do the methods that this one is
compared with. A key frame is what the large network alone makes of it, and so the same in every method.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4. Flow is in cells of h x w and points from the
current frame to the previous one. Scores are class logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.decide import labels_of
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.flow_warping import COMPOSED, FlowWarping
from vss_ros.methods.key_frames import KeyFrames

LITE_UPDATE = (16, 32, 96, 128)  # widths: a propagated frame costs a third of a key frame
FIRST_SAY = 0.25  # of the update branch in an untrained fusion; the warp has 1


class Accel(FlowWarping, KeyFrames):
    """Graphs: segmenter | flow, warp, correction. State: the image, the scores.

    The update branch is the segmenter of evss-lite, and with `backbone: lite` a narrow one of its kind.

    Args:
        classes: number of classes K.
        carry: scores handed to the next frame, `warped` (the paper), `merged`, those that were fused, or
            `composed`, see `FlowWarping`.
        options: those of `FlowWarping` and `KeyFrames`.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    state = {'image': 'previous_image', 'scores': 'previous_scores'}
    choices = {'carry': ('warped', 'merged', COMPOSED)}

    def __init__(self, classes: int, *, carry: str = 'warped', **options: Any) -> None:
        super().__init__(classes, carry=carry, **options)
        self.csrnet = self.build_csrnet()
        is_lite = self.options['backbone'] == 'lite'
        self.update_branch = (
            LiteSegmenter(classes, LITE_UPDATE, decoder=32) if is_lite else LiteSegmenter(classes)
        )
        self.fusion = Fusion(classes)

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> scores (N, K, h, w), mask, confidence."""
        scores, size = self.key_scores(image), image.shape[1:3]
        return {**self.from_key(scores=self.in_cells(scores, size)), **self.decided(scores, size)}

    def correction(self, image: Tensor, warped: Tensor, age: Tensor | None = None) -> dict[str, Tensor]:
        """Fuse the warped scores with those of the update branch.

        Args:
            image: uint8 (N, H, W, 3) BGR.
            warped: (N, K, h, w).
            age: see `decided`.
        Returns:
            scores: what the next frame takes; none if `carry` is `composed`.
            mask, confidence: see `decided`.
            corrected: share of cells of h x w whose class fusing changed, a scalar.
        """
        merged = self.fusion(warped, self.update_branch(self.look(image, self.update_branch))).float()
        return {
            **self.carried_on(scores=merged if self.options['carry'] == 'merged' else warped),
            **self.decided(merged, image.shape[1:3], age),
            'corrected': (labels_of(merged) != labels_of(warped)).float().mean(),
        }


class Fusion(nn.Module):
    """Scores of both branches, (N, K, h, w) each -> fused scores, by a 1x1 convolution.

    It begins as their weighted sum, class by class, so that what is not trained yet is close to the warp.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(2 * classes, classes, 1)
        assert self.join.bias is not None
        each = torch.eye(classes)
        with torch.no_grad():
            self.join.weight.copy_(torch.cat((each, FIRST_SAY * each), 1)[..., None, None])
            self.join.bias.zero_()

    def forward(self, warped: Tensor, updated: Tensor) -> Tensor:
        return self.join(torch.cat((warped, updated), 1))
