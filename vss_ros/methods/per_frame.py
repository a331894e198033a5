"""Every frame computed in full: what all video methods are measured against.

Shapes: N batch, K classes, H x W image.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vss_ros.methods.key_frames import KeyFrames


class PerFrame(KeyFrames):
    """Graph: segmenter. No state. Options: those of `KeyFrames`."""

    steps = {'key': ('segmenter',)}
    state: dict[str, str] = {}

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(classes, **options)
        self.csrnet = self.build_csrnet()

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> mask, confidence."""
        return self.decided(self.key_scores(image), image.shape[1:3])
