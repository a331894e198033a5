"""evss-lite: the graphs and maps of EVSS with networks made for CPUs and small robots.

Only the networks differ. A key frame costs a seventh of EVSS's multiply-adds; a propagated frame
takes its flow from the host (see `flow`) and fuses at a quarter of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vss_ros.methods.blocks.image import to_planes
from vss_ros.methods.blocks.lite import LiteCorrection, LiteSegmenter
from vss_ros.methods.evss import Evss


class EvssLite(Evss):
    """EVSS with the light networks; options as in `Evss`, with defaults for speed.

    Deciding at a quarter costs 0.6 points of mIoU against `full` and is what makes a propagated frame
    cost little more than a third of a key frame; use `full` or `half` where that does not matter.
    """

    def __init__(
        self,
        classes: int,
        w_f: float = 0.2,
        reference: str = 'key',
        fusion: str = 'quarter',
        carry: str = 'warped',
        decision: str = 'quarter',
        flow: str = 'dis',
        temperatures: Sequence[float] = (),
    ) -> None:
        super().__init__(classes, w_f, reference, fusion, carry, decision, flow, temperatures)
        self.folded: bool = False

    def build_networks(self, classes: int) -> tuple[nn.Module, nn.Module]:
        return LiteSegmenter(classes), LiteCorrection(classes)

    def fold(self, image_size: Sequence[int]) -> None:
        """Let the first convolutions take the camera's bytes as they are."""
        networks: list[Any] = [self.csrnet, self.conet]
        for network in networks:
            network.take_camera_bytes()
        self.folded = True

    def look(self, image: Tensor) -> Tensor:
        return to_planes(image) if self.folded else super().look(image)
