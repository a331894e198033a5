from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from vss_ros.core.errors import SettingsError
from vss_ros.training.losses import class_weights, segmentation_losses


def test_rare_classes_weigh_more_and_the_average_pixel_weighs_one():
    frequencies = np.array([0.7, 0.28, 0.02])
    weights = class_weights(frequencies, 1.02)
    assert weights[2] > weights[1] > weights[0]
    assert (weights * frequencies).sum() == pytest.approx(1)


@pytest.mark.parametrize('softness', [-1.0, 0.5, 1.0])
def test_a_softness_that_gives_no_positive_weights_is_refused(softness):
    with pytest.raises(SettingsError, match=r'use 0 .all classes the same. or more than 1'):
        class_weights(np.array([0.9, 0.1, 0.0]), softness)


def test_cross_entropy_is_that_of_torch_with_the_same_weights():
    torch.manual_seed(0)
    scores, weights = torch.randn(2, 4, 6, 8), torch.rand(4)
    labels = torch.randint(0, 4, (2, 6, 8))
    labels[0, 0] = 255
    ours = segmentation_losses(scores, labels, weights, 0)['cross_entropy']
    theirs = functional.cross_entropy(scores, labels, weights, ignore_index=255)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_jaccard_is_zero_for_a_certain_truth_and_one_for_certain_nonsense():
    labels = torch.tensor([[[0, 1], [1, 255]]])
    right = 50 * functional.one_hot(labels.where(labels != 255, 0), 2).movedim(-1, 1).float()
    assert segmentation_losses(right, labels, None, 1)['jaccard'].item() == pytest.approx(0, abs=1e-5)
    assert segmentation_losses(-right, labels, None, 1)['jaccard'].item() == pytest.approx(1, abs=1e-5)


def test_without_any_label_the_losses_are_zero_with_zero_gradients():
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    terms = segmentation_losses(scores, torch.full((1, 4, 4), 255), None, 1)
    sum(terms.values()).backward()
    assert all(term == 0 for term in terms.values())
    assert (scores.grad == 0).all()


def test_a_pixel_of_twice_the_emphasis_counts_as_if_it_were_there_twice():
    torch.manual_seed(0)
    scores, labels = torch.randn(1, 4, 1, 3), torch.tensor([[[0, 3, 255]]])
    emphasis = torch.tensor([[[2.0, 1.0, 5.0]]])
    emphasised = segmentation_losses(scores, labels, None, 0, emphasis)['cross_entropy']
    twice = segmentation_losses(scores[..., [0, 0, 1]], labels[..., [0, 0, 1]], None, 0)['cross_entropy']
    assert emphasised.item() == pytest.approx(twice.item(), abs=1e-6)
