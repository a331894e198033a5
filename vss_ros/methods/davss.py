"""DAVSS: video semantic segmentation with distortion-aware feature correction (Zhuang et al.).

A key frame is segmented in full by DeepLabv3+. A propagated frame warps the scores along the optical
flow, and with them a small copy of the key frame. Where that copy no longer looks like the current
frame the warp is wrong (DMNet), and scores of a network that sees only the current frame (CFNet) take
its place.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4. Flow is in cells of h x w and points from
the current frame to the previous one. Scores are class logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vss_ros.methods.blocks.camera_bytes import takes_camera_bytes
from vss_ros.methods.blocks.cfnet import CfNet
from vss_ros.methods.blocks.decide import check_decision, labels_of
from vss_ros.methods.blocks.deeplab import DeepLab
from vss_ros.methods.blocks.dmnet import DmNet
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.blocks.merge import merge
from vss_ros.methods.blocks.mixed_norm import NORMS, with_norms
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.flow_warping import COMPOSED, AppearanceWarping

LITE_MOMENTUM = 0.1  # the published one needs tens of thousands of steps to forget where it started
LITE_CUE = (16, 32, 96, 128)  # widths of the network of cues: a propagated frame costs 0.3 of a key frame


class Davss(AppearanceWarping):
    """Graphs: segmenter | flow, warp, correction. State: the image, the scores, the appearance.

    The appearance is a small copy of the key frame, see `AppearanceWarping`.

    Args:
        classes: number of classes K.
        backbone: `xception` (published), or `lite`: the segmenter of evss-lite, whose weights fit, and a
            narrow one of its kind in CFNet's place, for training and running on CPUs.
        align_corners: how maps and images are resized, see `resize`. The release trains with true and
            scores Cityscapes with false.
        fusion: resolution of fusing; `full` resizes scores, cue and map first (the release), `quarter`
            fuses where they are (cheaper, and not quite equal).
        carry: what the next frame is handed: `warped`, nothing of the correction (the release), or
            `merged`, corrected scores and an appearance corrected alike (a reading of the paper); or
            `composed`, the key frame's own, see `FlowWarping`.
        norms: of the key frame network, `batch` (published), or with `lite` also `mixed`, see `MixedNorm`.
        options: those of `FlowWarping`. `full` fusion needs the decision `full`, too.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    choices = {
        'backbone': ('xception', 'lite'),
        'norms': NORMS,
        'fusion': ('full', 'quarter'),
        'carry': ('warped', 'merged', COMPOSED),
    }
    key_network = 'deeplab'

    def __init__(
        self,
        classes: int,
        *,
        backbone: str = 'xception',
        align_corners: bool = True,
        fusion: str = 'full',
        carry: str = 'warped',
        norms: str = 'batch',
        **options: Any,
    ) -> None:
        super().__init__(
            classes,
            backbone=backbone,
            align_corners=align_corners,
            fusion=fusion,
            carry=carry,
            norms=norms,
            **options,
        )
        check_decision(fusion, self.decision)
        self.align_corners = align_corners
        deeplab: nn.Module
        self.cfnet: nn.Module
        if backbone == 'xception':
            deeplab, self.cfnet, self.dmnet = DeepLab(classes), CfNet(classes), DmNet()
        else:
            self.cfnet, deeplab = LiteSegmenter(classes, LITE_CUE, decoder=32), LiteSegmenter(classes)
            self.dmnet = DmNet(LITE_MOMENTUM)
        self.deeplab = with_norms(deeplab, norms)

    def small(self, seen: Tensor) -> Tensor:
        """What DeepLab and CFNet take, at a quarter, RGB in [0, 1]: (N, 3, H, W) -> (N, 3, h, w)."""
        quarter = self.quarter(seen)
        return quarter.flip(1) / 255 if takes_camera_bytes(self.deeplab) else quarter

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> scores (N, K, h, w), appearance, mask, confidence."""
        seen = self.look(image, self.deeplab)
        scores = self.deeplab(seen).float()  # the state stays float32 under autocast
        carried = self.from_key(scores=scores, appearance=self.small(seen))
        return {**carried, **self.decided(scores, seen.shape[2:])}

    def correction(
        self,
        image: Tensor,
        warped: Tensor,
        warped_appearance: Tensor,
        age: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Repair the warped scores where the appearance is not that of the image.

        Args:
            image: uint8 (N, H, W, 3) BGR.
            warped: (N, K, h, w).
            warped_appearance: (N, 3, h, w).
            age: see `decided`.
        Returns:
            scores, appearance: what the next frame takes; absent if `carry` is `composed`.
            mask, confidence: see `decided`.
            distortion: 0 trusts the warp, 1 the cue; (N, 1, H, W), or (N, 1, h, w) if fused there.
            corrected: share of cells of h x w whose class fusing changed, a scalar.
        """
        seen = self.look(image, self.cfnet)
        small = self.small(seen)
        distortion = self.dmnet(warped_appearance, small)
        cue = self.cfnet(seen).float()
        merged, wide_distortion = self.rectify(warped, cue, distortion, seen.shape[2:])

        carried = self.resize(merged, warped.shape[2:])
        feeds_back = self.options['carry'] == 'merged'
        return {
            **self.carried_on(
                scores=carried if feeds_back else warped,
                appearance=merge(warped_appearance, small, distortion) if feeds_back else warped_appearance,
            ),
            **self.decided(merged, seen.shape[2:], age),
            'distortion': wide_distortion,
            'corrected': (labels_of(carried) != labels_of(warped)).float().mean(),
        }

    def rectify(
        self, warped: Tensor, cue: Tensor, distortion: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Merged scores (DAVSS eq. 4) and the distortion map, at `size` or where `fusion` says.

        Args:
            warped, cue: scores, (N, K, h, w).
            distortion: (N, 1, h, w).
            size: the image's (H, W).
        """
        at = size if self.options['fusion'] == 'full' else warped.shape[2:]
        distortion = self.resize(distortion, at)
        return merge(self.resize(warped, at), self.resize(cue, at), distortion), distortion

    def resize(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return resize(maps, size, self.align_corners)
