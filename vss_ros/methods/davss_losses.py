"""What trains DAVSS: first DMNet, then the flow network and CFNet together; DeepLab stays frozen.

The release uses Adam with a rate of 1e-4, and 1e-5 from the middle on; but it lists every parameter two to
four times and so updates it as often per step. For a parameter listed once 3e-4 and 3e-5 come closest.
The stages are in `training/stages/distortion.py`; `test/release_davss.py` has the release's way through its
samples.
Shapes: N batch, K classes, H x W image.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from vss_ros.core.frame import UNLABELLED
from vss_ros.methods.evss_losses import mean_cross_entropy


class Prediction(NamedTuple):
    """One propagated frame, with gradients to the flow network and CFNet."""

    warped: Tensor  # (N, K, H, W)
    cue: Tensor  # (N, K, H, W)
    distortion: Tensor  # (N, 1, H, W)
    merged: Tensor  # (N, K, H, W)


def davss_losses(prediction: Prediction, targets: Tensor, batch_map: bool = False) -> dict[str, Tensor]:
    """The three losses of a frame, not weighted yet (DAVSS eq. 7).

    Args:
        targets: class ids, int64 (N, H, W); those that are no class are ignored, as in `mean_cross_entropy`.
        batch_map: weigh the cue of each image by the mean map of the batch, which is what broadcasting makes
            of it in the release, and not by its own; the same with one image.
    """
    distortion = prediction.distortion
    if batch_map:
        distortion = distortion.mean(0, keepdim=True)
    return {
        'propagation': mean_cross_entropy(prediction.warped, targets),
        'correction': mean_cross_entropy(prediction.merged, targets),
        'cue': cue_loss(prediction.cue, distortion, targets),
    }


def cue_loss(cue: Tensor, distortion: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the cue, weighted by the distortion map, mean over all pixels (DAVSS eq. 3).

    Args:
        cue: (N, K, H, W).
        distortion: (N, 1, H, W), or (1, 1, H, W) for all images.
        targets: int64 (N, H, W); ids that are no class are ignored, as in `mean_cross_entropy`.
    """
    targets = targets.masked_fill(targets >= cue.shape[1], UNLABELLED)
    errors = F.cross_entropy(cue, targets, ignore_index=UNLABELLED, reduction='none')
    return (errors * distortion[:, 0]).mean()


def distortion_target(warped: Tensor, own: Tensor) -> Tensor:
    """1 where the class of the warped scores (N, K, H, W) is not `own`, int64 (N, H, W); (N, 1, H, W)."""
    return (warped.argmax(1) != own).float()[:, None]
