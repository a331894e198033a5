"""How the release of EVSS trains: from the key frame to another in a single hop, and its four losses.

The stage of `training/stages/correction.py` takes the same terms over streams, and is held against this.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vss_ros.core.frame import UNLABELLED
from vss_ros.methods.blocks.decide import labels_of
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.evss import Evss
from vss_ros.methods.evss_losses import Prediction, edge_loss, mean_cross_entropy

WEIGHTS = {'warp': 0.2, 'semantic': 0.5, 'edge': 0.1, 'edge_semantics': 0.2}


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
    edge_targets = torch.where(predicted_edge & (targets != 0), targets, UNLABELLED)
    losses = {
        'warp': mean_cross_entropy(prediction.warped, targets),
        'semantic': mean_cross_entropy(prediction.merged, targets),
        'edge': edge_loss(prediction.edge, edge_labels),
        'edge_semantics': mean_cross_entropy(prediction.updated, edge_targets),
    }
    weighted = [WEIGHTS[name] * loss for name, loss in losses.items()]
    return losses | {'total': torch.stack(weighted).sum()}
