"""DVSNet: dynamic video segmentation network (Xu et al.).

A propagated frame warps the scores of the frame before along the optical flow. First a small decision network
says how much of the result is expected to agree with what the segmenter would have found, the expected
confidence score; where that is too little the frame is a key frame instead. What is too little is the
scheduler's business (`scheduler: adaptive`, `key_frame_threshold`); the graph gives `expected_accuracy`.
The paper's four regions are the runtime's business, too: `regions: 2x2`, which serves every method, see
`core/stream/regions.py`. Each region is then an image to this one.
Departures: by default a frame is one region, and the recipe trains on whole frames. The network looks at what
the flow step leaves, not at features inside a flow network, so it serves every source of flow: the flow, the
small copy of the key frame that is warped along with the scores beside the current image (as in DAVSS), and
how sure the warped scores are.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4. Flow is in cells of h x w and points from the
current frame to the previous one. Scores are class logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vss_ros.core.frame import CELL
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.lite import conv_norm_relu
from vss_ros.methods.flow_warping import COMPOSED, AppearanceWarping
from vss_ros.methods.key_frames import KeyFrames

REGION = 8  # side of a region of the decision network, in cells of h x w
FIRST_GUESS = 2.2  # logit of 0.9: what an untrained network expects
SEEN = 6  # flow, difference of appearance, confidence: 2 + 3 + 1 maps


class DvsNet(AppearanceWarping, KeyFrames):
    """Graphs: segmenter | flow, warp, trust, decide. State: the image, the scores, the appearance.

    The appearance is a small copy of the key frame, see `AppearanceWarping`.

    Args:
        classes: number of classes K.
        carry: `warped`, from frame to frame, or `composed`, see `FlowWarping`; the paper's flow leads to the
            key frame in one step.
        options: those of `FlowWarping` and `KeyFrames`.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    steps = {'key': ('segmenter',), 'propagated': ('flow', 'warp', 'trust', 'decide')}
    choices = {'carry': ('warped', COMPOSED)}

    def __init__(self, classes: int, *, carry: str = 'warped', **options: Any) -> None:
        super().__init__(classes, carry=carry, **options)
        self.csrnet = self.build_csrnet()
        self.decision_network = DecisionNetwork()

    def parameters_of(self, graph: str) -> tuple[str, ...]:
        names = super().parameters_of(graph)
        if graph == 'decide' and self.composes:  # the appearance of the key frame stays as it is
            return tuple(name for name in names if name != 'warped_appearance')
        return names

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> scores (N, K, h, w), appearance, mask, confidence."""
        scores, size = self.key_scores(image), image.shape[1:3]
        carried = self.from_key(scores=self.in_cells(scores, size), appearance=self.quarter(to_rgb(image)))
        return {**carried, **self.decided(scores, size)}

    def trust(
        self, image: Tensor, warped: Tensor, warped_appearance: Tensor, flow: Tensor
    ) -> dict[str, Tensor]:
        """Expected share (0..1) of pixels with the class that the segmenter would give them, (N,)."""
        regions = self.regions(self.quarter(to_rgb(image)), warped, warped_appearance, flow)
        return {'expected_accuracy': regions.mean((1, 2, 3))}

    def regions(self, appearance: Tensor, warped: Tensor, warped_appearance: Tensor, flow: Tensor) -> Tensor:
        """The same for each region of 8 x 8 cells, (N, 1, h/8, w/8), rounded up.

        Args:
            appearance: that of the current frame, RGB in [0, 1], (N, 3, h, w).
        """
        difference = (appearance - warped_appearance).abs()
        confidence = 1 / (warped - warped.amax(1, keepdim=True)).exp().sum(1, keepdim=True)
        return self.decision_network(torch.cat((flow, difference, confidence), 1)).float()

    def decide(
        self, warped: Tensor, warped_appearance: Tensor | None = None, age: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Warped scores (N, K, h, w) -> mask, confidence; and what the next frame takes."""
        height, width = (CELL * side for side in warped.shape[2:])
        carried = {} if warped_appearance is None else {'scores': warped, 'appearance': warped_appearance}
        return {**carried, **self.decided(warped, (height, width), age)}


class DecisionNetwork(nn.Module):
    """What is seen of a warp, (N, SEEN, h, w) -> expected accuracy of each region, (N, 1, h/8, w/8), 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(SEEN)  # brings cells, grey values and shares to one scale
        self.body = nn.Sequential(
            conv_norm_relu(SEEN, 16, 3, 2),
            conv_norm_relu(16, 32, 3, 2),
            conv_norm_relu(32, 32, 3, 2),
        )
        self.head = nn.Conv2d(32, 1, 1)
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.bias.fill_(FIRST_GUESS)

    def forward(self, seen: Tensor) -> Tensor:
        return self.head(self.body(self.norm(seen))).sigmoid()
