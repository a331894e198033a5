"""evss-lite: the graphs and maps of EVSS with networks made for CPUs and small robots.

Only the networks differ. A key frame costs a seventh of EVSS's multiply-adds, or with `magnify: 1.333` a
quarter; a propagated frame takes its flow from the host (see `flow`), is glanced at, and is fused at a
quarter of the image. With `backbone: csrnet` key frames are those of EVSS, and a propagated frame costs a
twentieth of one, or with a `glance` at full size a sixth.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vss_ros.core.described import check_choice
from vss_ros.methods.blocks.glance import GLANCES, Glance, LiteCorrection
from vss_ros.methods.blocks.mixed_norm import with_norms
from vss_ros.methods.evss import Evss


class EvssLite(Evss):
    """EVSS with the light networks; options as in `Evss`, with defaults for speed.

    Deciding at half the image's size loses almost no mIoU against `full`, in a quarter of the time. A
    `quarter` is faster still, and loses one to two points (docs/benchmarks.md has both).

    Args:
        glance: size of the image that is glanced at, `half`, `two_thirds` or `full`. Its `norms` are those of
            key frames.
    """

    def __init__(
        self,
        classes: int,
        *,
        fusion: str = 'quarter',
        decision: str = 'half',
        flow: str = 'dis',
        backbone: str = 'lite',
        glance: str = 'half',
        **options: Any,
    ) -> None:
        super().__init__(
            classes,
            fusion=fusion,
            decision=decision,
            flow=flow,
            backbone=backbone,
            glance=glance,
            **options,
        )
        check_choice('glance', glance, tuple(GLANCES))
        self.glance = with_norms(Glance(classes, glance), self.options['norms'])

    def build_conet(self) -> nn.Module:
        return LiteCorrection(self.classes)

    def look_again(self, image: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
        return self.conet(self.glance(image, warped), warped)

    @property
    def eye(self) -> nn.Module:
        return self.glance
