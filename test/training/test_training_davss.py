"""The two stages of DAVSS: the losses of the release on its samples, and learning on streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_models import run_step
from release_davss import distortion_loss, joint_losses, losses_by_batch, propagate, pseudo_labels

from vss_ros.core.errors import SettingsError
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.davss_losses import davss_losses
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.data import LabelledImages
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.stages.distortion import DistortionSettings, DistortionStage, JointSettings, JointStage
from vss_ros.training.stages.segmenter import SegmenterSettings, SegmenterStage

CPU = torch.device('cpu')
HEIGHT, WIDTH, CLASSES = 64, 96, 5
FIT = FitSettings(12, learning_rate=3e-3, warmup_steps=2, averaging=0.5, precision='fp32')
RELEASE = {'batch': 2, 'frames': 3, 'judged': 2, 'hops': 2, 'intervals': (2,), 'recolour': False}


@pytest.fixture(scope='module')
def clips():
    """Two patterns that move to the left, with labels of only the last frame."""
    rng, made = np.random.default_rng(0), []
    for _ in range(2):
        wide = np.kron(rng.integers(0, CLASSES, (4, 9)), np.ones((16, 12), int)).astype(np.uint8)
        image = np.stack([wide * 40, wide * 20, 200 - wide * 30], 2).astype(np.uint8)
        images = np.stack([image[:, 4 * t : 4 * t + WIDTH] for t in range(3)])
        labels = np.full(images.shape[:3], 255, np.uint8)
        labels[-1] = wide[:, 8 : 8 + WIDTH]
        made.append(Clip(images, labels))
    return made


def davss(**options):
    torch.manual_seed(0)
    method = build_method('davss', CLASSES, {'backbone': 'lite', **options})
    for norm in (module for module in method.deeplab.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    torch.nn.init.normal_(method.dmnet.conv4.bias)
    return method


def make(kind, settings_kind, method, clips, **settings):
    source = ClipLibrary(clips, HEIGHT, WIDTH, recoloured=False)
    frequencies = np.full(CLASSES, 1 / CLASSES)
    return kind(method, [(source, 1.0)], clips[:1], frequencies, settings_kind(**{**RELEASE, **settings}))


def tensors(stage, step=0):
    return {name: torch.from_numpy(array) for name, array in stage.batch(step).items()}


@pytest.mark.parametrize(
    ('detach_distortion', 'batch_map', 'losses_of'),
    [(False, False, davss_losses), (True, False, davss_losses), (False, True, losses_by_batch)],
)
def test_the_joint_stage_has_the_losses_and_gradients_of_the_release(
    clips, detach_distortion, batch_map, losses_of
):
    method = davss(flow='network', fusion='full')
    readings = {'detach_distortion': detach_distortion, 'batch_map': batch_map}
    stage = make(JointStage, JointSettings, method, clips, **readings)
    batch = tensors(stage)
    stage.module.eval()  # as statistics of a batch would be updated by the first of the two
    ours = stage.losses(batch)
    sum(ours.values()).backward()
    weight = method.flownet.conv3[0].weight
    gradient, weight.grad = weight.grad, None

    frames = [to_rgb(batch['images'][:, t]) for t in range(3)]
    targets = [pseudo_labels(method, frames[1]), batch['labels'][:, 2].long()]
    predictions = propagate(method, frames, detach_distortion=detach_distortion)
    theirs = joint_losses(predictions, targets, losses_of)
    theirs['total'].backward()
    torch.testing.assert_close(sum(ours.values()), theirs['total'])
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-6)
    assert gradient.abs().sum() > 0


def test_each_loss_of_the_joint_stage_has_its_own_weight(clips):
    weights = {'propagation': 2.0, 'correction': 3.0, 'cue': 5.0}
    method = davss(flow='network', fusion='full')
    alike, weighted = (
        make(JointStage, JointSettings, method, clips, **settings)
        for settings in (dict.fromkeys(weights, 1.0), weights)
    )
    batch = tensors(alike)
    alike.module.eval()
    losses, found = alike.losses(batch), weighted.losses(batch)
    assert losses.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight * losses[name])


def test_the_distortion_stage_refuses_true_labels():
    with pytest.raises(SettingsError, match='leave pseudo_labels out'):
        DistortionSettings(pseudo_labels=False)


@pytest.mark.parametrize('align_corners', [False, True])
def test_the_segmenter_is_trained_and_scored_where_the_method_draws_its_scores(align_corners):
    torch.manual_seed(0)
    options = {'backbone': 'lite', 'align_corners': align_corners}
    method = build_method('davss', 11, options).eval()
    images = [np.random.default_rng(n).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for n in range(2)]
    with torch.no_grad():
        method.deeplab.scores.weight.mul_(50)  # sure of its classes
        rgb = to_rgb(torch.from_numpy(np.stack(images)))
        own = method.resize(method.deeplab(rgb), (HEIGHT, WIDTH)).argmax(1).byte()
    stills = LabelledImages(['a_0', 'a_1'], images, list(own.numpy()))
    settings = SegmenterSettings(batch=2, weight_softness=0, jaccard=0)
    stage = SegmenterStage(method.deeplab, 11, [(stills, 1.0)], stills, settings, align_corners=align_corners)
    assert stage.validate(method.deeplab.eval())['miou'] == 100  # its own masks
    other = SegmenterStage(
        method.deeplab, 11, [(stills, 1.0)], stills, settings, align_corners=not align_corners
    )
    assert other.validate(method.deeplab.eval())['miou'] < 100
    batch = {'images': torch.from_numpy(np.stack(images)), 'labels': own}
    assert stage.losses(batch)['cross_entropy'] < other.losses(batch)['cross_entropy']


def test_the_distortion_stage_has_the_loss_of_the_release_and_ignores_true_labels(clips):
    method = davss(flow='network')
    stage = make(DistortionStage, DistortionSettings, method, clips)
    batch = tensors(stage)
    stage.module.eval()
    ours = stage.losses(batch)['distortion']
    frames = [to_rgb(batch['images'][:, t]) for t in range(3)]
    torch.testing.assert_close(ours, distortion_loss(method, frames))
    batch['labels'][:] = 1
    assert torch.equal(stage.losses(batch)['distortion'], ours)


def test_only_the_networks_of_a_stage_learn(clips, tmp_path):
    method = davss(flow='dis', fusion='quarter')
    for kind, settings, trained in (
        (DistortionStage, DistortionSettings, 'dmnet'),
        (JointStage, JointSettings, 'cfnet'),
    ):
        before = {name: value.clone() for name, value in method.state_dict().items()}
        stage = make(kind, settings, method, clips, hops=0, intervals=())
        fit(stage, FIT, tmp_path, CPU)
        changed = {
            name.split('.')[0] for name, value in method.state_dict().items() if (value != before[name]).any()
        }
        assert changed == {trained}


@pytest.mark.parametrize('carry', ['warped', 'merged', 'composed'])
def test_streams_run_like_the_graphs_of_the_method(clips, carry):
    method = davss(flow='dis', fusion='quarter', carry=carry)
    stage = make(JointStage, JointSettings, method, clips, hops=0, intervals=())
    stage.module.eval()
    batch = tensors(stage)
    state = method.state_of(run_step(method, 'key', {'image': batch['images'][:, 0]}))
    with torch.no_grad():
        for frame in stage.run(batch, [1, 2]):
            inputs = {'image': batch['images'][:, frame.place], 'flow': frame.flow, **state}
            step = run_step(method, 'propagated', inputs)
            state = method.state_of(step)
            torch.testing.assert_close(frame.prediction.warped, step['warped'], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(frame.prediction.distortion, step['distortion'], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('kind', 'settings', 'more'),
    [
        (DistortionStage, DistortionSettings, {}),
        (JointStage, JointSettings, {'jaccard': 0.5, 'cue_everywhere': 0.5}),
    ],
)
def test_the_loss_falls_and_the_clips_aside_are_scored(clips, tmp_path, kind, settings, more):
    stage = make(kind, settings, davss(flow='dis', fusion='quarter'), clips, hops=0, intervals=(), **more)
    losses, scores = [], {}

    def keep(step, values):
        if 'loss' in values:
            losses.append(values['loss'])
        else:
            scores.update(values)

    fit(stage, FIT, tmp_path, CPU, report=keep)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    first = 'error' if kind is DistortionStage else 'corrected'
    assert f'{first}_2' in scores


def test_samples_of_the_release_are_two_hops_apart_at_the_interval_drawn(clips):
    long = [Clip(np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8),
                 np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8))]  # fmt: skip
    source = ClipLibrary(long, 8, 8, recoloured=False)
    settings = JointSettings(**{**RELEASE, 'intervals': (2, 5, -4), 'frames': 4})
    stage = JointStage(davss(flow='network'), [(source, 1.0)], [], np.ones(CLASSES), settings)
    gaps = set()
    for step in range(20):
        batch = stage.batch(step)
        assert batch['judged'].tolist() == [1, 2]
        for numbers in batch['labels'][:, :, 0, 0].astype(int):
            key, between, last = numbers
            assert min(key, last) < between < max(key, last)
            gaps.add(last - key)
    assert gaps >= {2, 5, -4}
    assert gaps <= {2, 5, -4, 4, 10, -8}  # a library plays some clips at double speed


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'hops': 2, 'intervals': (1,)}, 'intervals are .* 2 or more'),
        ({'hops': 2, 'intervals': ()}, 'go together'),
        ({'hops': 1, 'intervals': (0,)}, 'intervals'),
        ({'intervals': (2.5,)}, 'intervals is .* each entry a whole number'),
        ({'batch': 1}, 'batch is 1; use 2 or more .* batch norm'),
        ({'judged': 3}, 'judged is 3 of 3 frames; use 1 to 2, the key frame is never judged'),
        ({'judged': 0}, 'judged is 0; use 1 or more'),
        ({'crop': (64,)}, 'crop'),
        ({'crop': (63, 96)}, 'multiples of 4'),
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong, message):
    with pytest.raises(SettingsError, match=message):
        JointSettings(**{**RELEASE, **wrong})
