"""How the release of DAVSS trains: samples of a few hops, nothing corrected on the way.

The stages of `training/stages/distortion.py` go through streams too, and are held against this.
Every frame is RGB in [0, 1], (N, 3, H, W): the key frame, an intermediate one and the last, up to ten frames
after the key. The last has true labels; for the others DeepLab's own take their place. Two frames are as
good, one hop then, and so are more.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vss_ros.core.frame import UNLABELLED
from vss_ros.methods.davss import Davss
from vss_ros.methods.davss_losses import Prediction, davss_losses, distortion_target

WEIGHTS = {'propagation': 0.5, 'correction': 0.5, 'cue': 1.0}  # DAVSS eq. 7 has 1, 1 and 1


class Hop(NamedTuple):
    """What one frame was handed by the frame before, at 1/4."""

    image: Tensor  # rgb (N, 3, H, W)
    warped: Tensor  # scores (N, K, h, w)
    distortion: Tensor  # (N, 1, h, w)


def hops(method: Davss, frames: Sequence[Tensor], flows: Sequence[Tensor] | None = None) -> Iterator[Hop]:
    """Carry the scores and the appearance of the first frame from frame to frame, nothing corrected.

    Args:
        flows: (N, 2, h, w) of every frame but the first to the one before, where no network estimates it.
    """
    with torch.no_grad():
        scores = method.segment(frames[0])
    appearance = method.quarter(frames[0])
    for index, (previous, current) in enumerate(pairwise(frames)):
        flow = method.flownet(current, previous) if flows is None else flows[index]
        scores, appearance = method.warp(scores, appearance, flow).values()
        yield Hop(current, scores, method.dmnet(appearance, method.quarter(current)))


def propagate(
    method: Davss,
    frames: Sequence[Tensor],
    flows: Sequence[Tensor] | None = None,
    detach_distortion: bool = False,
) -> list[Prediction]:
    """Segment every frame but the first from the one before it (dual deep supervision).

    Args:
        frames, flows: see `hops`.
        detach_distortion: keep the flow network from learning through the distortion map. The release
            lets it, by way of the warped appearance.
    """
    predictions = []
    for image, warped, distortion in hops(method, frames, flows):
        size = image.shape[2:]
        if detach_distortion:
            distortion = distortion.detach()
        cue = method.cfnet(image)
        merged, _ = method.rectify(warped, cue, distortion, size)
        maps = (warped, cue, distortion, merged)
        predictions.append(Prediction(*(method.resize(each, size) for each in maps)))
    return predictions


@torch.no_grad()
def pseudo_labels(method: Davss, image: Tensor) -> Tensor:
    """What DeepLab makes of an image: RGB in [0, 1], (N, 3, H, W) -> class ids, int64 (N, H, W)."""
    return method.resize(method.segment(image), image.shape[2:]).argmax(1)


def losses_by_batch(prediction: Prediction, targets: Tensor) -> dict[str, Tensor]:
    """The losses of a frame; the cue is weighted by the mean map of the batch, as broadcasting has it."""
    errors = F.cross_entropy(prediction.cue, targets, ignore_index=UNLABELLED, reduction='none')
    cue = (errors.mean(0) * prediction.distortion[:, 0].mean(0)).mean()
    return davss_losses(prediction, targets) | {'cue': cue}


def joint_losses(
    predictions: Sequence[Prediction],
    targets: Sequence[Tensor],
    losses_of: Callable[[Prediction, Tensor], dict[str, Tensor]] = losses_by_batch,
) -> dict[str, Tensor]:
    """The three losses of the joint training, each the mean over the frames, and their weighted sum, `total`.

    Args:
        predictions: from `propagate`.
        targets: class ids, int64 (N, H, W), 255 = ignore, one per prediction: `pseudo_labels` of all but
            the last, true labels of the last.
        losses_of: a frame; `davss_losses` for those of the paper.
    """
    each = [losses_of(*pair) for pair in zip(predictions, targets, strict=True)]
    losses = {name: torch.stack([frame[name] for frame in each]).mean() for name in WEIGHTS}
    return losses | {'total': torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()}


def distortion_loss(method: Davss, frames: Sequence[Tensor], flows: Sequence[Tensor] | None = None) -> Tensor:
    """The loss of DMNet: cross-entropy with where propagated and own labels differ; no true labels.

    Args:
        frames, flows: see `hops`. Three frames make two targets, as in the release; two make one, by a
            single hop, as in the paper.
    """
    losses = []
    for image, warped, distortion in hops(method, frames, flows):
        size = image.shape[2:]
        target = distortion_target(method.resize(warped, size), pseudo_labels(method, image))
        losses.append(F.binary_cross_entropy(method.resize(distortion, size), target))
    return torch.stack(losses).mean()
