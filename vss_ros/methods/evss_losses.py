"""The four losses that train the flow network and CoNet of EVSS; CSRNet stays frozen.

As published, the target is what CSRNet itself makes of the current image; true labels only say where edges
and thin objects are. The stage is in `training/stages/correction.py`; `test/release_evss.py` has the way
of the release, one hop and its weights.
Shapes: N batch, K classes, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vss_ros.core.frame import UNLABELLED


class Prediction(NamedTuple):
    """One propagated frame, with gradients to the flow network and CoNet."""

    warped: Tensor  # (N, K, H, W)
    updated: Tensor  # (N, K, H, W)
    edge: Tensor  # logits (N, 2, H, W)
    merged: Tensor  # (N, K, H, W)


def mean_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the pixels not ignored; 0, with zero gradients, where there are none.

    Ids that are no class, 11 in the release's labels of CamVid, are ignored like 255.
    """
    targets = targets.masked_fill(targets >= scores.shape[1], UNLABELLED)
    total = F.cross_entropy(scores, targets, ignore_index=UNLABELLED, reduction='sum')
    return total / (targets != UNLABELLED).sum().clamp(min=1)


def edge_loss(logits: Tensor, edge_labels: Tensor) -> Tensor:
    """Cross-entropy in which both classes of the batch weigh the same; 0 where one is absent."""
    edge_share = edge_labels.float().mean()
    weights = torch.stack((edge_share, 1 - edge_share))
    total = F.cross_entropy(logits, edge_labels, weight=weights, reduction='sum')
    return total / weights[edge_labels].sum().clamp(min=1)


def edge_label(labels: np.ndarray, thin_classes: Sequence[int], ignore: int = UNLABELLED) -> np.ndarray:
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
