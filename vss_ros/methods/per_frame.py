"""Every frame computed in full: what all video methods are measured against.

Shapes: N batch, K classes, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vss_ros.core.described import check_choice
from vss_ros.methods.key_frames import CHOICES, KeyFrames


class PerFrame(KeyFrames):
    """Graph: segmenter. No state.

    Args:
        classes: number of classes K.
        backbone: `csrnet`, the key frame network of EVSS, or `lite`, that of evss-lite.
        magnify: how much larger than it is a key frame is looked at, see `KeyFrames`.
        norms: of the key frame network, see `KeyFrames`.
        decision: resolution of deciding a pixel's class, see `decide`.
        temperatures: of the confidence, see `Method`; one at most.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    steps = {'key': ('segmenter',)}
    state: dict[str, str] = {}

    def __init__(
        self,
        classes: int,
        backbone: str = 'csrnet',
        decision: str = 'full',
        temperatures: Sequence[float] = (),
        magnify: float = 1,
        norms: str = 'batch',
    ) -> None:
        super().__init__(
            classes, temperatures, backbone=backbone, decision=decision, magnify=magnify, norms=norms
        )
        for name, choices in CHOICES.items():
            check_choice(name, self.options[name], choices)
        self.csrnet = self.build_csrnet()

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> mask, confidence."""
        return self.decided(self.key_scores(image), image.shape[1:3])
