"""The losses of DAVSS agree with the released program, in both readings where there are two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from release_davss import distortion_loss, joint_losses, losses_by_batch, propagate, pseudo_labels
from torch.nn import functional as F

from vss_ros.methods.davss import Davss
from vss_ros.methods.davss_losses import Prediction, cue_loss, davss_losses, distortion_target
from vss_ros.training.propagation import train_only
from vss_ros.training.stages.distortion import DistortionStage, JointStage

MODES = ('eval', 'train')
LIMIT = 1e-4  # of losses and running statistics
GRADIENT_LIMIT = 2e-2  # the warp's cells and the kinks of ReLU turn rounding into small jumps


@pytest.fixture(scope='module')
def arrays(reference_arrays):
    loaded = reference_arrays('davss_a.npz')
    names = [name for name in loaded if name.startswith(('train/', 'r0/frames'))]
    return {name.removeprefix('train/'): loaded[name] for name in names}


@pytest.fixture(scope='module')
def frames(arrays):
    """Key, intermediate and last frame of a batch of two: frames 0 to 2, and 1 to 3."""
    rgb = torch.from_numpy(arrays['r0/frames']).permute(0, 3, 1, 2).float() / 255
    return [rgb[i : i + 2] for i in range(3)]


@pytest.fixture(scope='module')
def targets(filled_davss, arrays, frames):
    return [pseudo_labels(filled_davss(19), frames[1]), torch.from_numpy(arrays['label']).long()]


@pytest.fixture(scope='module')
def joint(filled_davss, frames, targets):
    """Runs one step of the joint training: joint('train')."""
    done = {}

    def run(mode):
        if mode not in done:
            davss = filled_davss(19)
            train_only(davss, JointStage.trained)
            if mode == 'eval':
                davss.eval()
            predictions = propagate(davss, frames)
            losses = joint_losses(predictions, targets)
            losses['total'].backward()
            done[mode] = davss, predictions, losses
        return done[mode]

    return run


def gradients(davss):
    return {name: value.grad.clone() for name, value in davss.named_parameters() if value.grad is not None}


def assert_gradients_agree(davss, arrays, mode, networks):
    prefix = f'bn_{mode}/grad/'
    names = [name for name in arrays if name.startswith(tuple(prefix + network for network in networks))]
    assert len(names) == (2 if networks == DistortionStage.trained else 5)
    found = gradients(davss)
    for name in names:
        gradient = found[name.removeprefix(prefix)].numpy()
        limit = 1e-3 if name.endswith('predict_cc.weight') else GRADIENT_LIMIT
        assert np.abs(gradient - arrays[name]).max() <= limit * np.abs(arrays[name]).max()


def test_pseudo_labels_are_those_of_the_release(arrays, targets):
    assert (targets[0].numpy() != arrays['bn_eval/pseudo_label']).mean() <= 0.0005


@pytest.mark.parametrize('mode', MODES)
def test_joint_losses_agree_with_the_release(joint, arrays, mode):
    _, _, losses = joint(mode)
    assert list(losses) == ['propagation', 'correction', 'cue', 'total']
    semantic = (losses['propagation'] + losses['correction']) / 2
    assert semantic.item() == pytest.approx(float(arrays[f'bn_{mode}/loss_semantic']), rel=LIMIT)
    assert losses['cue'].item() == pytest.approx(float(arrays[f'bn_{mode}/loss_cfnet']), rel=LIMIT)
    assert losses['total'].item() == pytest.approx((semantic + losses['cue']).item())


def test_the_losses_of_each_frame_agree_with_the_release(joint, arrays, targets):
    _, predictions, _ = joint('eval')
    each = [losses_by_batch(p, t) for p, t in zip(predictions, targets, strict=True)]
    semantic = [losses[name].item() for losses in each for name in ('propagation', 'correction')]
    cue = [losses['cue'].item() for losses in each]
    assert semantic == pytest.approx(arrays['bn_eval/terms_semantic'], rel=LIMIT)
    assert cue == pytest.approx(arrays['bn_eval/terms_cfnet'], rel=LIMIT)


def test_with_its_own_map_each_image_has_the_loss_of_the_paper(joint, arrays, targets):
    _, predictions, _ = joint('eval')
    expected, in_the_release = arrays['bn_eval/terms_cfnet_paired'], arrays['bn_eval/terms_cfnet']
    found = [davss_losses(p, t)['cue'].item() for p, t in zip(predictions, targets, strict=True)]
    assert found == pytest.approx(expected, rel=LIMIT)
    assert found != pytest.approx(in_the_release, rel=LIMIT)
    assert joint_losses(predictions, targets, davss_losses)['cue'].item() == pytest.approx(
        expected.mean(), rel=LIMIT
    )


@pytest.mark.parametrize('mode', MODES)
def test_joint_gradients_agree_with_the_release(joint, arrays, mode):
    davss, _, _ = joint(mode)
    assert_gradients_agree(davss, arrays, mode, JointStage.trained)


def test_in_the_joint_training_only_the_flow_network_and_cfnet_learn(joint):
    davss, _, _ = joint('train')
    assert {name.split('.')[0] for name in gradients(davss)} == set(JointStage.trained)
    assert not davss.deeplab.training
    assert not davss.dmnet.training


def test_detaching_the_distortion_map_changes_what_the_flow_network_learns_and_nothing_else(
    filled_davss, frames, targets, joint
):
    davss = filled_davss(19)
    train_only(davss, JointStage.trained)
    davss.eval()
    losses = joint_losses(propagate(davss, frames, detach_distortion=True), targets)
    losses['total'].backward()
    attached, _, with_gradients = joint('eval')
    assert losses['total'].item() == pytest.approx(with_gradients['total'].item())
    before, after = gradients(attached), gradients(davss)
    for name, gradient in before.items():
        change = (after[name] - gradient).abs().max() / gradient.abs().max()
        assert change > 0.2 if name.startswith('flownet') else change < 1e-4


@pytest.mark.parametrize('mode', MODES)
def test_the_loss_of_dmnet_and_its_gradients_agree_with_the_release(filled_davss, frames, arrays, mode):
    davss = filled_davss(19)
    train_only(davss, DistortionStage.trained)
    davss.dmnet.train(mode == 'train')
    loss = distortion_loss(davss, frames)
    loss.backward()
    assert loss.item() == pytest.approx(float(arrays[f'bn_{mode}/loss_dmnet']), rel=LIMIT)
    assert {name.split('.')[0] for name in gradients(davss)} == {'dmnet'}
    assert_gradients_agree(davss, arrays, mode, DistortionStage.trained)
    if mode == 'train':
        expected = arrays['bn_train/after/dmnet.conv1.1.running_mean']
        np.testing.assert_allclose(davss.dmnet.conv1[1].running_mean, expected, rtol=0, atol=1e-5)


def test_running_statistics_after_a_joint_step_agree_with_the_release(joint, arrays):
    davss, _, _ = joint('train')
    for name in ('running_mean', 'running_var'):
        expected = arrays[f'bn_train/after/cfnet.conv1.1.{name}']
        np.testing.assert_allclose(getattr(davss.cfnet.conv1[1], name), expected, atol=1e-4)


@pytest.fixture(scope='module')
def light():
    torch.manual_seed(0)
    return Davss(5, backbone='lite', flow='dis').eval()


def test_two_frames_are_a_single_hop(light):
    images = [torch.rand(1, 3, 64, 96) for _ in range(2)]
    still = [torch.zeros(1, 2, 16, 24)]
    (prediction,) = propagate(light, images, still)
    assert torch.equal(prediction.warped.argmax(1), pseudo_labels(light, images[0]))
    with torch.no_grad():
        distortion = light.dmnet(light.quarter(images[0]), light.quarter(images[1]))
        changed = pseudo_labels(light, images[0]) != pseudo_labels(light, images[1])
        expected = F.binary_cross_entropy(light.resize(distortion, (64, 96)), changed.float()[:, None])
        assert distortion_loss(light, images, still).item() == pytest.approx(expected.item())


def test_the_last_frame_is_reached_over_the_intermediate_one(light):
    images = [torch.rand(1, 3, 64, 96) for _ in range(3)]
    right = torch.zeros(1, 2, 16, 24)
    right[:, 0] = 1
    with torch.no_grad():
        chained = propagate(light, images, [right, right])[-1].warped
        direct = propagate(light, images[::2], [2 * right])[-1].warped
    torch.testing.assert_close(chained, direct)


def test_fusing_at_a_quarter_trains_what_it_runs(light, monkeypatch):
    images = [torch.rand(1, 3, 64, 96) for _ in range(2)]
    still = [torch.zeros(1, 2, 16, 24)]
    with torch.no_grad():
        full = propagate(light, images, still)[0]
        monkeypatch.setitem(light.options, 'fusion', 'quarter')
        coarse = propagate(light, images, still)[0]
    assert coarse.merged.shape == full.merged.shape == (1, 5, 64, 96)
    assert torch.equal(coarse.warped, full.warped)
    assert not torch.equal(coarse.merged, full.merged)


def random_prediction(images):
    torch.manual_seed(0)
    scores = torch.randn(3, images, 5, 8, 12, requires_grad=True)
    return scores, Prediction(scores[0], scores[1], torch.rand(images, 1, 8, 12), scores[2])


@pytest.mark.parametrize('target', [0, 3, 255])
def test_losses_are_finite_where_nothing_is_labelled(target):
    scores, prediction = random_prediction(2)
    losses = davss_losses(prediction, torch.full((2, 8, 12), target))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert torch.isfinite(scores.grad).all()
    if target == 255:
        assert sum(losses.values()) == 0


def test_the_cue_learns_only_where_the_map_says_so():
    scores, prediction = random_prediction(1)
    distortion = torch.zeros(1, 1, 8, 12)
    distortion[..., 2:5, 3:7] = 0.5
    cue_loss(prediction.cue, distortion, torch.zeros(1, 8, 12).long()).backward()
    assert torch.equal(scores.grad[1].abs().sum(1)[0] > 0, distortion[0, 0] > 0)


@pytest.mark.parametrize('images', [1, 3])
def test_the_map_of_the_batch_is_what_broadcasting_gives(images):
    _, prediction = random_prediction(images)
    targets = torch.randint(0, 5, (images, 8, 12))
    errors = F.cross_entropy(prediction.cue, targets, reduction='none')
    found = losses_by_batch(prediction, targets)['cue']
    assert found.item() == pytest.approx((errors * prediction.distortion).mean().item())
    own = cue_loss(prediction.cue, prediction.distortion, targets)
    assert (own.item() == pytest.approx(found.item())) == (images == 1)


def test_labels_that_are_no_class_are_ignored_like_255_by_all_losses():
    _, prediction = random_prediction(1)
    targets = torch.randint(0, 5, (1, 8, 12))
    losses = []
    for void in (5, 11, 255):
        targets[:, :2] = void
        losses.append(davss_losses(prediction, targets))
    assert losses[0] == losses[1] == losses[2]


def test_distortion_targets_are_where_the_classes_differ():
    warped = torch.eye(3).T.reshape(1, 3, 1, 3)  # classes 0, 1, 2
    found = distortion_target(warped, torch.tensor([[[0, 2, 2]]]))
    assert found.tolist() == [[[[0, 1, 0]]]]
