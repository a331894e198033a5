"""EVSS: distortion map-guided feature rectification for efficient video segmentation (Xiong et al.).

A key frame is segmented in full by CSRNet. A propagated frame warps the scores of its anchor (in the paper
the frame before) along the optical flow, and CoNet computes new ones where a distortion map says that the
warp cannot be trusted: where the warp changed the class (coarse map) and at edges and thin objects.
Beyond the paper, frames between corrections may be carried: the anchor's mask is moved along the flow. So the
anchor is the last frame that was not carried, and what is called `previous_...` is of it.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4. Flow is in cells of h x w and points from
the current frame to the anchor. Scores are class logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL
from vss_ros.core.model.steps import CARRIED, DECISIONS
from vss_ros.methods.blocks.conet import CoNet
from vss_ros.methods.blocks.decide import check_decision, labels_of
from vss_ros.methods.blocks.merge import merge
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import known, read_nearest
from vss_ros.methods.flow_warping import COMPOSED, FlowWarping
from vss_ros.methods.key_frames import KeyFrames
from vss_ros.methods.method import at_age, numbers_by_age


class Evss(FlowWarping, KeyFrames):
    """Graphs: segmenter | flow, warp, correction | flow, carry.

    State: the image, the scores, the reference labels, mask and confidence.

    Args:
        classes: number of classes K.
        w_f: weight of the coarse map in the distortion map, 0..1; the rest goes to the edge map. The
            release uses 0.2, the paper 0.5.
        edge_offsets: added to the logit of the edge probability once a model is trained, by frames since the
            key frame, that of the first one first; the last serves all later ones. Below 0 the warp is
            trusted more. None as published.
        correction_interval: of the frames between key frames each n-th is corrected, the others are carried.
            1 as published.
        reference: labels the coarse map compares the warp with: those of the `key` frame (as the
            release does, in training too) or of the `previous` frame (Algorithm 1 of the paper).
        fusion: resolution of fusing; `full` resizes scores and maps first (the release), `quarter`
            fuses where they are (the paper, and much cheaper).
        carry: scores handed to the next frame, `warped` (the paper) or `merged`; or `composed`, those of
            the key frame, see `FlowWarping`.
        options: those of `FlowWarping` and `KeyFrames`, as published by default. `full` fusion needs the
            decision `full`, too.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    edge_offset_by_age: Tensor
    choices = {
        'reference': ('key', 'previous'),
        'fusion': ('full', 'quarter'),
        'carry': ('warped', 'merged', COMPOSED),
    }
    steps = {**FlowWarping.steps, CARRIED: ('flow', 'carry')}
    state = {
        'image': 'previous_image',
        'scores': 'previous_scores',
        'labels': 'reference_labels',
        'mask': 'previous_mask',
        'confidence': 'previous_confidence',
    }

    def __init__(
        self,
        classes: int,
        *,
        w_f: float = 0.2,
        reference: str = 'key',
        fusion: str = 'full',
        carry: str = 'warped',
        edge_offsets: Sequence[float] = (),
        correction_interval: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(
            classes,
            w_f=w_f,
            reference=reference,
            fusion=fusion,
            carry=carry,
            correction_interval=correction_interval,
            **options,
        )
        if not 0 <= w_f <= 1:
            raise SettingsError(f'w_f is {w_f}; use a weight from 0 to 1')
        if correction_interval < 1:
            raise SettingsError(f'correction_interval is {correction_interval!r}; use 1 or more')
        self.correction_interval = correction_interval
        wanted = 'numbers, such as [-3, -2, 0], or [] for none'
        by_age = numbers_by_age('edge_offsets', edge_offsets, wanted)
        self.register_buffer('edge_offset_by_age', by_age, persistent=False)
        if edge_offsets:
            self.options['edge_offsets'] = list(edge_offsets)
        self.tell_ages_apart(len(edge_offsets))
        check_decision(fusion, self.decision)
        self.csrnet, self.conet = self.build_csrnet(), self.build_conet()

    def build_conet(self) -> nn.Module:
        return CoNet(self.classes)

    def look_again(self, image: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
        """RGB in [0, 1] (N, 3, H, W), warped scores -> edge logits (N, 2, h, w), updated scores (N, K, h, w).

        Once the method is folded, the image is as the `eye` takes it, see `look`.
        """
        return self.conet(image, warped)

    @property
    def eye(self) -> nn.Module:
        """The network that looks at propagated frames."""
        return self.conet

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> scores, labels uint8 (N, 1, h, w), mask, confidence."""
        fine, size = self.key_scores(image), image.shape[1:3]
        scores = self.in_cells(fine, size)
        return {
            **self.from_key(scores=scores),
            'labels': labels_of(scores).to(torch.uint8),
            **self.decided(fine, size),
        }

    def correction(
        self,
        image: Tensor,
        warped: Tensor,
        reference_labels: Tensor,
        age: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Repair the warped scores where the distortion map says so.

        Args:
            image: uint8 (N, H, W, 3) BGR.
            warped: (N, K, h, w).
            reference_labels: uint8 (N, 1, h, w).
            age: see `decided`.
        Returns:
            scores, labels: what the next frame takes, like its inputs; no scores if `carry` is `composed`.
            mask, confidence: see `decided`.
            distortion: 0 trusts the warp, 1 the update; (N, 1, H, W), or (N, 1, h, w) if fused there.
            corrected: share of cells of h x w whose class fusing changed, a scalar (EVSS eq. 9).
        """
        size = image.shape[1:3]
        reference = reference_labels.float()
        edge, updated = self.look_again(self.look(image, self.eye), warped)
        offset = at_age(self.edge_offset_by_age, None if age is None else age - 1)
        merged, distortion = self.rectify(warped, updated, edge, reference, size, offset)

        in_cells = resize(merged, warped.shape[2:])
        labels = labels_of(in_cells)
        follows = self.options['reference'] == 'previous'
        return {
            **self.carried_on(scores=in_cells if self.options['carry'] == 'merged' else warped),
            'labels': (labels if follows else reference).to(torch.uint8),
            **self.decided(merged, size, age),
            'distortion': distortion,
            'corrected': (labels != labels_of(warped)).float().mean(),
        }

    def carry(self, previous_mask: Tensor, previous_confidence: Tensor, flow: Tensor) -> dict[str, Tensor]:
        """What was decided for the anchor is read where the flow points, and nothing is computed anew.

        Scores that are warped blur, and thin things with them; decisions stay as they are, and there are two
        maps of bytes to read instead of one of scores for each class. The mask is read pixel by pixel, also
        where it was decided more coarsely: so its outlines move as the image does, not in jumps.

        Args:
            previous_mask, previous_confidence: uint8 (N, H', W'), at the size that `decision` says.
            flow: in cells of a quarter of the image, (N, 2, h, w).
        Returns:
            mask, confidence: of this frame, uint8 (N, H, W) and (N, H', W').
        """
        part = DECISIONS[self.decision]
        flow = CELL // part * known(flow)  # in pixels of the maps that are read
        decided = previous_mask.shape[1:]
        size = [part * side for side in decided]
        mask = read_nearest(previous_mask.float()[:, None], resize(flow, size))
        confidence = read_nearest(previous_confidence.float()[:, None], resize(flow, decided))
        return {'mask': mask[:, 0].to(torch.uint8), 'confidence': confidence[:, 0].to(torch.uint8)}

    def rectify(
        self,
        warped: Tensor,
        updated: Tensor,
        edge: Tensor,
        reference: Tensor,
        size: Sequence[int],
        edge_offset: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Merged scores and the distortion map behind them, at `size` or where `fusion` says.

        Args:
            warped, updated: scores, (N, K, h, w).
            edge: logits, (N, 2, h, w).
            reference: labels the warp is compared with, float (N, 1, h, w).
            size: the image's (H, W).
            edge_offset: see `distortion_map`.
        """
        at = size if self.options['fusion'] == 'full' else warped.shape[2:]
        coarse = (labels_of(warped) != reference).float()
        distortion = distortion_map(resize(coarse, at), resize(edge, at), self.options['w_f'], edge_offset)
        return merge(resize(warped, at), resize(updated, at), distortion), distortion


def distortion_map(coarse: Tensor, edge: Tensor, w_f: float, edge_offset: Tensor | None = None) -> Tensor:
    """The fine distortion map: w_f * coarse + (1 - w_f) * edge probability.

    Args:
        coarse: 1 where warping changed the class, (N, 1, h, w).
        edge: logits of the edge module, (N, 2, h, w).
        edge_offset: added to the logit of the edge probability.
    """
    logit = edge[:, 1:] - edge[:, :1]  # softmax of two channels is a sigmoid of their difference
    if edge_offset is not None:
        logit = logit + edge_offset
    return w_f * coarse + (1 - w_f) * logit.sigmoid()
