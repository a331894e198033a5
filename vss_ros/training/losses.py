"""Losses of scores against labels: cross-entropy with weights, soft Jaccard."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vss_ros.core.errors import SettingsError
from vss_ros.methods.blocks.resize import resize
from vss_ros.training.data import IGNORE


def class_weights(frequencies: np.ndarray, softness: float) -> np.ndarray:
    """1 / ln(softness + frequency), scaled to an average of 1 over the pixels (ENet, sec. 5.1).

    A larger `softness` (ENet: 1.02) pulls the weights of rare classes closer to the others.

    Raises:
        SettingsError: with this softness weights would be negative or without bound.
    """
    if not softness > 1:
        raise SettingsError(f'weight_softness is {softness}; use 0 (all classes the same) or more than 1')
    weights = 1 / np.log(softness + frequencies)
    return weights / max((weights * frequencies).sum(), 1e-9)


def segmentation_losses(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    jaccard: float,
    emphasis: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted cross-entropy and `jaccard` times the soft Jaccard loss, at the size of the labels.

    The Jaccard loss is 1 - the mean, over the classes present, of intersection over union of
    probabilities: what mIoU measures, made smooth.

    Args:
        scores: logits of any size, (N, K, h, w).
        labels: class ids, 255 where unlabelled, int64 (N, H, W).
        weights: of the classes, (K,); all the same if none are given.
        emphasis: further weights of the pixels in the cross-entropy, (N, H, W).
    """
    classes = scores.shape[1]
    logarithms = resize(scores.float(), labels.shape[1:]).log_softmax(1)
    known = labels != IGNORE
    labels = labels.where(known, 0)
    of_truth = logarithms.gather(1, labels[:, None])[:, 0]
    importance = known.float() if weights is None else weights[labels] * known
    if emphasis is not None:
        importance = importance * emphasis
    terms = {'cross_entropy': -(importance * of_truth).sum() / importance.sum().clamp(min=1)}
    if jaccard > 0:

        def per_class(values: Tensor) -> Tensor:
            return values.new_zeros(classes).index_add(0, labels.flatten(), values.flatten())

        both = per_class(of_truth.exp() * known)
        truth = per_class(known.float())
        either = (logarithms.exp() * known[:, None]).sum((0, 2, 3)) + truth - both
        ratio = (both / either.clamp(min=1))[truth > 0]
        terms['jaccard'] = jaccard * (1 - ratio).sum() / max(len(ratio), 1)
    return terms
