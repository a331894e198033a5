"""What the methods share that carry something along the optical flow: where that flow comes from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vss_ros.core.settings import check_choice
from vss_ros.methods.blocks.flownet import FlowNet
from vss_ros.methods.blocks.image import STRIDE, to_rgb
from vss_ros.methods.method import Method

FLOWS = ('network', 'dis', 'motion_vectors')


class FlowWarping(Method):
    """A method whose propagated frames take `flow`, from a network of its own or from the host.

    Flow is in cells of h x w = H/4 x W/4 and points from the current frame to the previous one.

    Args:
        classes: number of classes K.
        flow: `network`, or the host that brings `flow` (1, 2, h, w) with every propagated frame; the
            method then has no flow network and no `flow` graph.
        options: the subclass's own.
    Attributes:
        choices: the values each of the subclass's options may have.
    Raises:
        SettingsError: an option has none of the values it may have.
    """

    steps = {'key': ('segmenter',), 'propagated': ('flow', 'warp', 'correction')}
    choices: dict[str, tuple[str, ...]] = {}

    def __init__(self, classes: int, flow: str, **options: Any) -> None:
        super().__init__(classes, **options, flow=flow)
        for name, choices in {**self.choices, 'flow': FLOWS}.items():
            check_choice(name, self.options[name], choices)
        if flow == 'network':
            self.flownet = self.build_flownet()
        else:
            self.host_stages = ('flow',)

    def build_flownet(self) -> nn.Module:
        """flownet(rgb, previous rgb) -> flow (N, 2, h, w); RGB in [0, 1], float (N, 3, H, W)."""
        return FlowNet()

    def host_tensors(self, image: Tensor) -> dict[str, Tensor]:
        if not self.host_stages:
            return {}
        height, width = image.shape[1] // STRIDE, image.shape[2] // STRIDE
        return {'flow': torch.zeros(len(image), 2, height, width, device=image.device)}

    def flow(self, image: Tensor, previous_image: Tensor) -> dict[str, Tensor]:
        """Two images, uint8 (N, H, W, 3) BGR -> flow (N, 2, h, w)."""
        return {'flow': self.flownet(to_rgb(image), to_rgb(previous_image)).float()}
