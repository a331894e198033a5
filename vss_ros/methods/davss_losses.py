"""How DAVSS is trained: first DMNet, then the flow network and CFNet together; DeepLab stays frozen.

Every stage takes frames in a row, RGB in [0, 1], (N, 3, H, W) each: the key frame, an intermediate one
and the last, up to ten frames after the key. The last has true labels; for the others DeepLab's own
take their place. Two frames are as good, one hop then, and so are more.
The release uses Adam with a rate of 1e-4, and 1e-5 from the middle on; but it lists every parameter two to
four times and so updates it as often per step. For a parameter listed once 3e-4 and 3e-5 come closest.
`propagate` and `distortion_loss` are the release's way through its samples. The stages in `training/davss.py`
go through streams too, and are tested against them.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vss_ros.core.described import check_choice
from vss_ros.core.errors import ShapeError
from vss_ros.methods.davss import Davss
from vss_ros.methods.evss_losses import IGNORE, mean_cross_entropy

WEIGHTS = {'propagation': 0.5, 'correction': 0.5, 'cue': 1.0}  # of the release; DAVSS eq. 7 has 1, 1 and 1
DISTORTION_STAGE = ('dmnet',)
JOINT_STAGE = ('flownet', 'cfnet')
CUE_WEIGHTS = ('own', 'batch')


class Prediction(NamedTuple):
    """One propagated frame at full resolution, with gradients to the flow network and CFNet."""

    warped: Tensor  # (N, K, H, W)
    cue: Tensor  # (N, K, H, W)
    distortion: Tensor  # (N, 1, H, W)
    merged: Tensor  # (N, K, H, W)


class Hop(NamedTuple):
    """What one frame was handed by the frame before, at 1/4."""

    image: Tensor  # rgb (N, 3, H, W)
    warped: Tensor  # scores (N, K, h, w)
    distortion: Tensor  # (N, 1, h, w)


def train_only(method: Davss, networks: Sequence[str]) -> None:
    """Lets these networks learn, in training mode; the others are frozen, in eval mode.

    Args:
        networks: DISTORTION_STAGE or JOINT_STAGE.
    """
    for name, network in method.named_children():
        network.train(name in networks).requires_grad_(name in networks)


def hops(method: Davss, frames: Sequence[Tensor], flows: Sequence[Tensor] | None = None) -> Iterator[Hop]:
    """Carry the scores and the appearance of the first frame from frame to frame, nothing corrected.

    Args:
        flows: (N, 2, h, w) of every frame but the first to the one before, where no network estimates it.
    """
    if len(frames) < 2 or (flows is not None and len(flows) != len(frames) - 1):
        given = '' if flows is None else f' and {len(flows)} flows'
        raise ShapeError(f'got {len(frames)} frames{given}; give a key frame and more, and a flow per hop')
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


def davss_losses(
    predictions: Sequence[Prediction],
    targets: Sequence[Tensor],
    weights: dict[str, float] = WEIGHTS,
    cue_weight: str = 'own',
) -> dict[str, Tensor]:
    """The three losses, each the mean over the frames, and their weighted sum as `total`.

    Args:
        predictions: from `propagate`.
        targets: class ids, int64 (N, H, W), 255 = ignore, one per prediction: `pseudo_labels` of all but
            the last, true labels of the last.
        weights: of the losses.
        cue_weight: see `cue_loss`.
    """
    if len(predictions) != len(targets):
        raise ShapeError(f'{len(predictions)} predictions and {len(targets)} targets; give one target each')
    pairs = list(zip(predictions, targets, strict=True))
    terms = {
        'propagation': [mean_cross_entropy(each.warped, target) for each, target in pairs],
        'correction': [mean_cross_entropy(each.merged, target) for each, target in pairs],
        'cue': [cue_loss(each.cue, each.distortion, target, cue_weight) for each, target in pairs],
    }
    losses = {name: torch.stack(term).mean() for name, term in terms.items()}
    return losses | {'total': torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()}


def cue_loss(cue: Tensor, distortion: Tensor, targets: Tensor, cue_weight: str = 'own') -> Tensor:
    """Cross-entropy of the cue, weighted by the distortion map, mean over all pixels (DAVSS eq. 3).

    Args:
        cue: (N, K, H, W).
        distortion: (N, 1, H, W).
        targets: int64 (N, H, W); ids that are no class are ignored, as in `mean_cross_entropy`.
        cue_weight: `own`, each image weighted by its own map, or `batch`, by the mean map of the batch:
            what broadcasting makes of it in the release. With one image they are the same.
    """
    check_choice('cue_weight', cue_weight, CUE_WEIGHTS)
    targets = targets.masked_fill(targets >= cue.shape[1], IGNORE)
    errors = F.cross_entropy(cue, targets, ignore_index=IGNORE, reduction='none')
    if cue_weight == 'batch':
        return (errors.mean(0) * distortion[:, 0].mean(0)).mean()
    return (errors * distortion[:, 0]).mean()


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


def distortion_target(warped: Tensor, own: Tensor) -> Tensor:
    """1 where the class of the warped scores (N, K, H, W) is not `own`, int64 (N, H, W); (N, 1, H, W)."""
    return (warped.argmax(1) != own).float()[:, None]
