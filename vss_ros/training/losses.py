"""Losses of scores against labels: cross-entropy with weights, soft Jaccard."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vss_ros.core.described import setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import UNLABELLED
from vss_ros.methods.blocks.resize import resize


class ClassBalance(NamedTuple):
    """What makes up for rare classes while a network learns; float32 (K,) each.

    Attributes:
        weights: of the classes in the cross-entropy, above 0.
        offsets: added to the scores where the weights count, so that the network's own are without them.
    """

    weights: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> ClassBalance:
        return ClassBalance(self.weights.to(device), self.offsets.to(device))


def loss_weight(default: float, text: str) -> Any:
    """A field of settings: how much a loss weighs."""
    return setting(default, text, range=(0, math.inf))


def softness_of_weights(default: float) -> Any:
    """A field of settings: that of class weights."""
    return setting(default, 'of class weights, see `class_weights`; 0: all the same', range=(0, math.inf))


def adjustment_of_scores() -> Any:
    """A field of settings: that of scores by class weights."""
    return setting(0.0, 'how much of class weights scores are without, see `class_balance`', range=(0, 1))


def class_balance(
    frequencies: np.ndarray, softness: float, logit_adjustment: float = 0
) -> ClassBalance | None:
    """The balance by class weights; None where `softness` is 0, then all classes are the same.

    Weights make a network see rare classes where there are none, and most of all in places it does not know.
    So a share of that is taken back: the losses see scores + `logit_adjustment` * log(weights), what is
    deployed are the scores (Menon et al. 2021, who adjust by frequencies).

    Raises:
        SettingsError: the weights would not be positive, see `class_weights`, or there are none to adjust by.
    """
    if logit_adjustment and not softness:
        raise SettingsError(f'logit_adjustment is {logit_adjustment}; use 0 where weight_softness is 0')
    if not softness:
        return None
    weights = torch.from_numpy(class_weights(frequencies, softness)).float()
    return ClassBalance(weights, logit_adjustment * weights.log())


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


def squares(labels: Tensor, side: int = 2) -> Tensor:
    """The labels that each score stands for where scores are coarser: (N, H, W) -> (N, S, H/side, W/side).

    All S = side^2 of them, because one alone lies beside the middle of its square: learnt from that one, a
    network gives masks that lie as far beside the truth.
    """
    count, height, width = labels.shape
    parts = labels.reshape(count, height // side, side, width // side, side)
    return parts.permute(0, 2, 4, 1, 3).reshape(count, side * side, height // side, width // side)


def segmentation_losses(
    scores: Tensor,
    labels: Tensor,
    balance: ClassBalance | None,
    jaccard: float,
    emphasis: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted cross-entropy and `jaccard` times the soft Jaccard loss, at the size of the labels.

    The Jaccard loss is 1 - the mean, over the classes present, of intersection over union of
    probabilities: what mIoU measures, made smooth.

    Args:
        scores: logits of any size, (N, K, h, w).
        labels: class ids, 255 where unlabelled, int64 (N, H, W), or (N, S, H, W) as `squares` gives them.
        balance: of the classes, on any device; all the same if there is none.
        emphasis: further weights in the cross-entropy, of the shape of the labels.
    """
    classes = scores.shape[1]
    scores = resize(scores.float(), labels.shape[-2:])
    if balance is not None:
        balance = balance.to(scores.device)
        scores = scores + balance.offsets[:, None, None]
    logarithms = scores.log_softmax(1)
    labels = labels if labels.ndim == 4 else labels[:, None]
    known = labels != UNLABELLED
    labels = labels.where(known, 0)
    of_truth = logarithms.gather(1, labels)
    importance = known.float() if balance is None else balance.weights[labels] * known
    if emphasis is not None:
        importance = importance * emphasis.reshape(importance.shape)
    terms = {'cross_entropy': -(importance * of_truth).sum() / importance.sum().clamp(min=1)}
    if jaccard > 0:

        def per_class(values: Tensor) -> Tensor:
            return values.new_zeros(classes).index_add(0, labels.flatten(), values.flatten())

        both = per_class(of_truth.exp() * known)
        truth = per_class(known.float())
        either = (logarithms.exp() * known.sum(1, keepdim=True)).sum((0, 2, 3)) + truth - both
        ratio = (both / either.clamp(min=1))[truth > 0]
        terms['jaccard'] = jaccard * (1 - ratio).sum() / max(len(ratio), 1)
    return terms
