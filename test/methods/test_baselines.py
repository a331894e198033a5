"""The methods that others are compared with: per-frame, DFF, Accel, DVSNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_models import run_step
from torch import nn

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.accel import Fusion
from vss_ros.methods.blocks.decide import decide
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.dvsnet import REGION
from vss_ros.training.start import start_from

CLASSES = 11
SIZE = (64, 96)
LITE = {'backbone': 'lite', 'flow': 'dis'}
ALL = {
    'per-frame': {'backbone': 'lite'},
    'dff': {**LITE, 'scale_field': False},
    'accel': LITE,
    'dvsnet': LITE,
}


@pytest.fixture(scope='module')
def images():
    return [torch.from_numpy(image[None]) for image in example_frames(SIZE, 3)]


def built(name, **options):
    torch.manual_seed(0)
    return build_method(name, CLASSES, options).eval()


@torch.no_grad()
def two_frames(method, images, flow=None):
    """What a key frame and the next frame gave."""
    key = run_step(method, 'key', {'image': images[0], **method.host_tensors(images[0])})
    flows = {} if flow is None else {'flow': flow}
    tensors = {'image': images[1], **method.host_tensors(images[1]), **flows, **method.state_of(key)}
    return key, run_step(method, 'propagated', tensors)


@torch.no_grad()
def step_gmacs(method, size=(360, 480)):
    """1e9 multiply-adds of all convolutions of a key and of a propagated step."""
    counts = []
    for layer in method.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, output: counts.append(output.numel() * layer.weight[0].numel())
            )
    image = torch.zeros(1, *size, 3, dtype=torch.uint8)
    key = run_step(method, 'key', {'image': image, **method.host_tensors(image)})
    of_key = sum(counts)
    run_step(method, 'propagated', {'image': image, **method.host_tensors(image), **method.state_of(key)})
    return of_key / 1e9, (sum(counts) - of_key) / 1e9


@pytest.mark.parametrize('name', ALL)
@torch.no_grad()
def test_a_key_frame_is_that_of_evss_lite_with_its_weights_unchanged(name, tiny_model, images):
    start = {'csrnet': f'{tiny_model}/csrnet'}
    method, evss = built(name, **ALL[name], decision='full'), built('evss-lite', decision='full')
    for each in (method, evss):
        start_from(each, start)
    found, expected = (run_step(each, 'key', {'image': images[0]}) for each in (method, evss))
    assert torch.equal(found['mask'], expected['mask'])
    assert torch.equal(found['confidence'], expected['confidence'])


@pytest.mark.parametrize('name', ALL)
@torch.no_grad()
def test_folding_for_export_changes_no_result(name, images):
    method = built(name, **ALL[name])
    before = method.examples(*images[:2])
    method.fold(SIZE)
    after = method.examples(*images[:2])
    for graph, example in before.items():
        for tensor, expected in example.outputs.items():
            found = after[graph].outputs[tensor]
            assert torch.allclose(expected.float(), found.float(), atol=1e-3), tensor


def test_dff_warps_and_decides_and_does_nothing_else(images):
    flow = torch.full((1, 2, 16, 24), 0.75)
    key, then = two_frames(built('dff', **ALL['dff']), images, flow)
    warped = warp(key['scores'], flow)
    assert torch.equal(then['scores'], warped)
    assert torch.equal(then['mask'], decide(warped, SIZE)['mask'])
    assert 'corrected' not in then


def test_a_new_scale_field_scales_by_one_and_a_trained_one_class_by_class(images):
    method = built('dff', backbone='lite')
    _, fresh = two_frames(method, images)
    assert torch.equal(fresh['scale'], torch.ones_like(fresh['scale']))
    assert torch.equal(fresh['scores'], fresh['warped'])
    with torch.no_grad():
        method.flownet.predict_scale.bias[3] = 2.0
    _, scaled = two_frames(method, images)
    expected = fresh['warped'].clone()
    expected[:, 3] *= 2
    assert torch.allclose(scaled['scores'], expected)


def test_the_flow_of_dff_is_that_of_the_plain_flow_network(images):
    scaling, plain = built('dff', backbone='lite'), built('dff', backbone='lite', scale_field=False)
    state = {name: w for name, w in scaling.state_dict().items() if 'predict_scale' not in name}
    plain.load_state_dict(state)
    assert torch.equal(two_frames(scaling, images)[1]['flow'], two_frames(plain, images)[1]['flow'])


def test_an_untrained_fusion_adds_a_quarter_of_the_update_branch_to_the_warp():
    warped, updated = torch.randn(2, 1, CLASSES, 5, 7)
    assert torch.allclose(Fusion(CLASSES)(warped, updated), warped + updated / 4, atol=1e-5)


def test_accel_takes_the_class_that_both_branches_speak_for(images):
    method = built('accel', **LITE)
    with torch.no_grad():
        method.update_branch.scores.weight.zero_()
        method.update_branch.scores.bias.zero_()
        method.update_branch.scores.bias[7] = 1000.0
    _, then = two_frames(method, images)
    assert (then['mask'] == 7).all()
    assert then['corrected'] == (decide(then['warped'], (16, 24))['mask'] != 7).float().mean()


@pytest.mark.parametrize(('carry', 'same'), [('warped', True), ('merged', False)])
def test_accel_hands_on_what_it_was_told_to(images, carry, same):
    _, then = two_frames(built('accel', **LITE, carry=carry), images, torch.full((1, 2, 16, 24), 0.5))
    assert torch.equal(then['scores'], then['warped']) == same


def test_dvsnet_expects_the_mean_of_its_regions(images):
    method = built('dvsnet', **LITE)
    _, then = two_frames(method, images, torch.full((1, 2, 16, 24), 0.5))
    with torch.no_grad():
        names = ('warped', 'warped_appearance', 'flow')
        regions = method.regions(method.quarter(to_rgb(images[1])), *(then[name] for name in names))
    assert regions.shape == (1, 1, 16 // REGION, 24 // REGION)
    assert torch.allclose(then['expected_accuracy'], regions.mean()[None])
    assert 0 < then['expected_accuracy'] < 1


@pytest.mark.parametrize(('name', 'share'), [('accel', 0.35), ('dvsnet', 0.01), ('dff', 0.0)])
def test_a_propagated_frame_costs_a_small_part_of_a_key_frame(name, share):
    key, propagated = step_gmacs(built(name, **ALL[name]))
    assert propagated <= share * key


@pytest.mark.parametrize(
    ('name', 'options', 'advice'),
    [
        ('per-frame', {'backbone': 'resnet'}, 'backbone is .resnet.; use one of csrnet, lite'),
        ('per-frame', {'decision': 'eighth'}, 'decision is .eighth.; use one of full'),
        ('dff', {'carry': 'merged'}, 'carry is .merged.; use one of warped, composed'),
        ('dff', {'scale_field': 'yes'}, 'scale_field is .yes.; use true or false'),
        ('dff', {'flow': 'dis'}, 'scale_field is true with flow dis, but only a flow network gives one'),
        ('dff', {'carry': 'composed'}, 'scale_field is true with carry composed'),
        ('accel', {'flow': 'farneback'}, 'flow is .farneback.; use one of network, dis'),
        ('accel', {'carry': 'fused'}, 'carry is .fused.; use one of warped, merged, composed'),
        ('dvsnet', {'carry': 'merged'}, 'carry is .merged.; use one of warped, composed'),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_what_to_use(name, options, advice):
    with pytest.raises(SettingsError, match=advice):
        build_method(name, CLASSES, {'backbone': 'lite', **options})


@pytest.fixture(scope='module')
def dvsnet(shared_model):
    return shared_model('dvsnet quarter', lambda: built('dvsnet', **LITE, decision='quarter'), SIZE)


def test_the_scheduler_takes_what_dvsnet_expects_and_leaves_a_frame_half_way(dvsnet):
    engine = load_engine(dvsnet, EngineSettings('onnxruntime', threads=1))
    frames = [Frame(image, number * 10**8) for number, image in enumerate(example_frames(SIZE, 6))]

    def found(threshold):
        settings = StreamSettings(
            scheduler='adaptive', key_frame_threshold=threshold, min_interval=1, max_interval=4
        )
        segmenter = VideoSegmenter(dvsnet, engine, settings)
        return [segmenter.step(frame) for frame in frames]

    trusting, doubting = found(0.0), found(1.0)
    assert ''.join('K' if one.is_key else '.' for one in trusting) == 'K...K.'
    assert all((one.expected_accuracy is None) == one.is_key for one in trusting)
    assert all(one.is_key for one in doubting)
    assert 'trust' in doubting[1].timings_ms  # what was found out before the frame was given up ...
    assert 'decide' not in doubting[1].timings_ms  # ... and the rest was not computed
    alone = VideoSegmenter(dvsnet, engine, StreamSettings(1))
    for one, frame in zip(doubting, frames, strict=True):
        assert np.array_equal(one.mask, alone.step(frame).mask)
