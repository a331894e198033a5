"""The four losses that train the flow network and CoNet of EVSS; CSRNet stays frozen.

The target is what CSRNet itself makes of the current image; true labels only say where edges and
thin objects are. `predict`, `pseudo_labels` and `evss_losses` are the release's way, one hop and its weights.
The stages in `training/` take the same terms over streams, and are tested against them.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.evss import Evss, labels_of

IGNORE = 255
WEIGHTS = {'warp': 0.2, 'semantic': 0.5, 'edge': 0.1, 'edge_semantics': 0.2}


class Prediction(NamedTuple):
    """One propagated frame at full resolution, with gradients to the flow network and CoNet."""

    warped: Tensor  # (N, K, H, W)
    updated: Tensor  # (N, K, H, W)
    edge: Tensor  # logits (N, 2, H, W)
    merged: Tensor  # (N, K, H, W)


def predict(method: Evss, key: Tensor, current: Tensor, flow: Tensor | None = None) -> Prediction:
    """Propagate the key frame to the current one in a single hop, however far apart they are.

    Args:
        key: RGB in [0, 1], (N, 3, H, W).
        current: the same of the frame to segment.
        flow: (N, 2, h, w) from the current to the key frame, where no network estimates it.
    """
    size = current.shape[2:]
    with torch.no_grad():
        key_scores = method.segment(key)
    if flow is None:
        flow = method.flownet(current, key)
    warped = warp(key_scores, flow)
    edge, updated = method.look_again(current, warped)
    merged, _ = method.rectify(warped, updated, edge, labels_of(key_scores), size)
    return Prediction(*(resize(maps, size) for maps in (warped, updated, edge, merged)))


@torch.no_grad()
def pseudo_labels(method: Evss, image: Tensor) -> Tensor:
    """What CSRNet makes of an image: RGB in [0, 1], (N, 3, H, W) -> class ids, int64 (N, H, W)."""
    return resize(method.csrnet(image), image.shape[2:]).argmax(1)


def evss_losses(prediction: Prediction, targets: Tensor, edge_labels: Tensor) -> dict[str, Tensor]:
    """The four losses and, as `total`, their weighted sum.

    Args:
        prediction: from `predict`.
        targets: class ids, int64 (N, H, W), of which others are ignored: `pseudo_labels`, or true labels.
        edge_labels: 1 at edges and thin objects, else 0, int64 (N, H, W); see `edge_label`.
    """
    predicted_edge = prediction.edge.argmax(1) == 1
    # The release marks pixels off the edge by class 0, and so loses class 0 itself; kept.
    edge_targets = torch.where(predicted_edge & (targets != 0), targets, IGNORE)
    losses = {
        'warp': mean_cross_entropy(prediction.warped, targets),
        'semantic': mean_cross_entropy(prediction.merged, targets),
        'edge': edge_loss(prediction.edge, edge_labels),
        'edge_semantics': mean_cross_entropy(prediction.updated, edge_targets),
    }
    weighted = [WEIGHTS[name] * loss for name, loss in losses.items()]
    return losses | {'total': torch.stack(weighted).sum()}


def mean_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the pixels not ignored; 0, with zero gradients, where there are none.

    Ids that are no class, 11 in the release's labels of CamVid, are ignored like 255.
    """
    targets = targets.masked_fill(targets >= scores.shape[1], IGNORE)
    total = F.cross_entropy(scores, targets, ignore_index=IGNORE, reduction='sum')
    return total / (targets != IGNORE).sum().clamp(min=1)


def edge_loss(logits: Tensor, edge_labels: Tensor) -> Tensor:
    """Cross-entropy in which both classes of the batch weigh the same; 0 where one is absent."""
    edge_share = edge_labels.float().mean()
    weights = torch.stack((edge_share, 1 - edge_share))
    total = F.cross_entropy(logits, edge_labels, weight=weights, reduction='sum')
    return total / weights[edge_labels].sum().clamp(min=1)


def edge_label(labels: np.ndarray, thin_classes: Sequence[int], ignore: int = IGNORE) -> np.ndarray:
    """Where edges and thin objects are, uint8 (H, W) of 0 and 1.

    A pixel is an edge if its class differs from that of the pixel above, to the right, below right
    or below left; of each pair only this one pixel counts, so that edges are one pixel wide.

    Args:
        labels: class ids, uint8 (H, W).
        thin_classes: ids whose pixels all count.
        ignore: an id that makes no edges.
    """
    edges = np.isin(labels, thin_classes)
    known = labels != ignore

    def mark(here: tuple[slice, slice], there: tuple[slice, slice]) -> None:
        edges[here] |= (labels[here] != labels[there]) & known[here] & known[there]

    every, first, last = slice(None), slice(None, -1), slice(1, None)
    mark((last, every), (first, every))
    mark((every, first), (every, last))
    mark((first, first), (last, last))
    mark((first, last), (last, first))
    return edges.astype(np.uint8)
