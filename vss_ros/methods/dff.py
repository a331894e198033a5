"""DFF: deep feature flow for video recognition (Zhu et al.), on scores.

A key frame is segmented in full. A propagated frame warps what the key frame left along the optical flow and
multiplies it by a scale field that the flow network estimates beside the flow.
Departures: DFF warps features at 1/16 and runs the last layers on them, and its flow leads to the key frame
in one step. Here scores at 1/4 are carried from frame to frame, as by the methods that this one is compared
with; `carry: composed` follows the flow back to the key frame. The stage that trains the scale field,
`training/stages/scaling.py`, leaves the key frame network as it is; the paper trains it along.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4. Flow is in cells of h x w and points from the
current frame to the previous one. Scores are class logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL
from vss_ros.methods.blocks.flownet import FEATURES, FlowNet
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.flow_warping import COMPOSED, FlowWarping
from vss_ros.methods.key_frames import KeyFrames


class Dff(FlowWarping, KeyFrames):
    """Graphs: segmenter | flow, warp, decide. State: the image, the scores.

    Args:
        classes: number of classes K.
        scale_field: whether warped scores are scaled. The field comes from the flow network's own features,
            so there is none where the host brings the flow.
        carry: `warped`, from frame to frame, or `composed`, see `FlowWarping`.
        options: those of `FlowWarping` and `KeyFrames`.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    steps = {'key': ('segmenter',), 'propagated': ('flow', 'warp', 'decide')}
    state = {'image': 'previous_image', 'scores': 'previous_scores'}
    choices = {'carry': ('warped', COMPOSED)}

    def __init__(
        self, classes: int, *, scale_field: bool = True, carry: str = 'warped', **options: Any
    ) -> None:
        super().__init__(classes, scale_field=scale_field, carry=carry, **options)
        flow = self.options['flow']
        if scale_field and flow != 'network':
            raise SettingsError(
                f'scale_field is true with flow {flow}, but only a flow network gives one; use false'
            )
        if scale_field and carry == COMPOSED:
            raise SettingsError(
                'scale_field is true with carry composed, but it leads from frame to frame; use false'
            )
        self.csrnet = self.build_csrnet()

    def build_flownet(self) -> nn.Module:
        return ScalingFlowNet(self.classes) if self.options['scale_field'] else super().build_flownet()

    def parameters_of(self, graph: str) -> tuple[str, ...]:
        names = super().parameters_of(graph)
        scaled = self.options['scale_field']
        return tuple(name for name in names if name != 'scale' or scaled)

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> scores (N, K, h, w), mask, confidence."""
        scores, size = self.key_scores(image), image.shape[1:3]
        return {**self.from_key(scores=self.in_cells(scores, size)), **self.decided(scores, size)}

    def flow(self, image: Tensor, previous_image: Tensor) -> dict[str, Tensor]:
        """Two images, uint8 (N, H, W, 3) BGR -> flow (N, 2, h, w) and the scale field (N, K, h, w)."""
        if not isinstance(self.flownet, ScalingFlowNet):
            return super().flow(image, previous_image)
        flow, scale = self.flownet.flow_and_scale(to_rgb(image), to_rgb(previous_image))
        return {'flow': flow.float(), 'scale': scale.float()}

    def decide(
        self, warped: Tensor, scale: Tensor | None = None, age: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scale the warped scores and decide.

        Args:
            warped: (N, K, h, w).
            scale: (N, K, h, w), with `scale_field`.
            age: see `decided`.
        Returns:
            scores: what the next frame takes; none if `carry` is `composed`.
            mask, confidence: see `decided`.
        """
        scores = warped if scale is None else warped * scale
        height, width = (CELL * side for side in warped.shape[2:])
        return {
            **self.carried_on(scores=scores),
            **self.decided(scores, (height, width), age),
        }


class ScalingFlowNet(FlowNet):
    """The flow network with one 1x1 convolution more, for the scale field, which begins as one everywhere."""

    entries = ('flow_and_scale',)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.predict_scale = nn.Conv2d(FEATURES, classes, 1)
        assert self.predict_scale.bias is not None
        with torch.no_grad():
            self.predict_scale.weight.zero_()
            self.predict_scale.bias.fill_(1)

    def flow_and_scale(self, current: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Two images -> flow (N, 2, h, w) and scale field (N, K, h, w)."""
        features = self.features(current, previous)
        return self.flow_of(features), self.predict_scale(features)
