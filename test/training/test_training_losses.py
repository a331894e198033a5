from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from vss_ros.core.errors import SettingsError
from vss_ros.training.losses import ClassBalance, class_balance, class_weights, segmentation_losses, squares
from vss_ros.training.stages.segmenter import SegmenterSettings


def test_rare_classes_weigh_more_and_the_average_pixel_weighs_one():
    frequencies = np.array([0.7, 0.28, 0.02])
    weights = class_weights(frequencies, 1.02)
    assert weights[2] > weights[1] > weights[0]
    assert (weights * frequencies).sum() == pytest.approx(1)


@pytest.mark.parametrize('softness', [-1.0, 0.5, 1.0])
def test_a_softness_that_gives_no_positive_weights_is_refused(softness):
    with pytest.raises(SettingsError, match=r'use 0 .all classes the same. or more than 1'):
        class_weights(np.array([0.9, 0.1, 0.0]), softness)


def test_all_classes_are_the_same_without_weights():
    assert class_balance(np.array([0.9, 0.1]), 0) is None


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_a_logit_adjustment_that_is_no_share_of_weights_is_refused(share):
    with pytest.raises(SettingsError, match=f'logit_adjustment is {share}; use 0 to 1'):
        SegmenterSettings(logit_adjustment=share)


def test_without_weights_there_is_nothing_to_adjust_by():
    with pytest.raises(SettingsError, match='use 0 where weight_softness is 0'):
        class_balance(np.array([0.9, 0.1]), 0, 0.5)


def test_the_losses_are_those_of_scores_with_a_share_of_the_log_weights_added():
    torch.manual_seed(0)
    scores, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    frequencies = np.array([0.7, 0.28, 0.02])
    adjusted, plain = (class_balance(frequencies, 1.05, share) for share in (0.5, 0.0))
    added = 0.5 * plain.weights.log()[:, None, None]
    ours = segmentation_losses(scores, labels, adjusted, 1)
    expected = segmentation_losses(scores + added, labels, plain, 1)
    assert {name: term.item() for name, term in ours.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}
    )


def test_a_network_taught_with_the_adjustment_favours_rare_classes_less():
    """Where the image says nothing, its shares move from those by weight to those by frequency."""
    labels = torch.tensor([[[0] * 9 + [1]]])
    shares = {}
    for adjustment in (0.0, 0.5, 1.0):
        balance = class_balance(np.array([0.9, 0.1]), 1.05, adjustment)
        bias = torch.zeros(2, requires_grad=True)
        optimiser = torch.optim.LBFGS([bias], max_iter=100)

        def loss(bias=bias, balance=balance, optimiser=optimiser):
            optimiser.zero_grad()
            loss = segmentation_losses(bias[None, :, None, None].expand(1, 2, 1, 10), labels, balance, 0)
            loss['cross_entropy'].backward()
            return loss['cross_entropy']

        optimiser.step(loss)
        shares[adjustment] = bias.softmax(0)[1].item()
    assert shares[0.0] > shares[0.5] > shares[1.0] == pytest.approx(0.1, abs=1e-3)


def test_cross_entropy_is_that_of_torch_with_the_same_weights():
    torch.manual_seed(0)
    scores, weights = torch.randn(2, 4, 6, 8), torch.rand(4)
    labels = torch.randint(0, 4, (2, 6, 8))
    labels[0, 0] = 255
    ours = segmentation_losses(scores, labels, ClassBalance(weights, torch.zeros(4)), 0)['cross_entropy']
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


def test_coarse_scores_stand_for_all_pixels_of_their_squares():
    labels = torch.arange(16).reshape(1, 4, 4)
    assert squares(labels)[0, :, 0, 1].tolist() == [2, 3, 6, 7]
    assert squares(labels, 4)[0, :, 0, 0].tolist() == list(range(16))


def test_labels_of_squares_that_are_all_alike_are_those_of_the_coarse_map():
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5))
    labels[0, 0] = 255
    balance = ClassBalance(torch.rand(4), torch.randn(4))
    fine = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected = segmentation_losses(scores, labels, balance, 0.5)
    found = segmentation_losses(scores, squares(fine), balance, 0.5)
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}
    )


def test_scores_that_lie_left_of_the_truth_cost_as_much_as_those_that_lie_right_of_it():
    """Or a network learns to give masks that lie beside what they show."""
    labels = torch.tensor([0] * 16 + [1] * 16).expand(1, 8, 32)

    def loss(shift):
        edge = (torch.arange(16) * 2 + 0.5 - 15.5 - shift).expand(1, 4, 16)
        return segmentation_losses(torch.stack((-edge, edge), 1), squares(labels), None, 0)['cross_entropy']

    assert loss(-1).item() == pytest.approx(loss(1).item(), rel=1e-4)
    assert loss(0) < loss(1)
