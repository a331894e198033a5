"""From scores to the mask and its confidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vss_ros.core.errors import SettingsError
from vss_ros.core.model.steps import DECISIONS
from vss_ros.methods.blocks.resize import resize


def decide(
    scores: Tensor,
    size: Sequence[int],
    decision: str = 'full',
    align_corners: bool = False,
    temperature: Tensor | None = None,
) -> dict[str, Tensor]:
    """Class of every pixel and how sure it is.

    Args:
        scores: class logits, (N, K, h, w).
        size: the image's (H, W).
        decision: resolution at which pixels are decided: `full`, or `half` or `quarter` of the image
            (3 and 10 times faster on a CPU). Whoever shows the mask enlarges it, as it must do anyway
            where the camera's images are larger than the network's.
        align_corners: see `resize`.
        temperature: what scores are divided by for the confidence, above 0; above 1 it makes less sure.
    Returns:
        mask: class ids, uint8 (N, H, W), or a half or a quarter of it.
        confidence: round(255 * largest class probability), uint8, of the same size.
    """
    part = DECISIONS[decision]
    if temperature is not None:
        scores = scores / temperature  # while they are few: the order of classes stays
    scores = resize(scores, (size[0] // part, size[1] // part), align_corners)
    best = scores.amax(1, keepdim=True)
    # The largest softmax without a softmax over channels, which is far slower on a CPU.
    confidence = 255 / (scores - best).exp().sum(1)
    mask = labels_of(scores)[:, 0]
    return {'mask': mask.to(torch.uint8), 'confidence': confidence.round().to(torch.uint8)}


def labels_of(scores: Tensor) -> Tensor:
    """Best class of each cell as float (N, 1, h, w); a later uint8 must come from a float."""
    return scores.argmax(1, keepdim=True).float()


def check_decision(fusion: str, decision: str) -> None:
    """Raises SettingsError where fusing at full resolution leaves nothing to decide coarsely."""
    if fusion == 'full' and decision != 'full':
        raise SettingsError(
            f'decision is {decision!r} with fusion full; '
            'fusing at full resolution also decides there, use fusion quarter'
        )
