"""What the options of DAVSS change, what its networks cost, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from method_models import run_step
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vss_ros.core.engines.onnx_runtime import session_options
from vss_ros.core.errors import SettingsError
from vss_ros.exporting.verify import example_frames
from vss_ros.exporting.write_graph import write_graph
from vss_ros.methods import build_method
from vss_ros.methods.blocks.decide import decide, labels_of
from vss_ros.methods.blocks.dmnet import DmNet
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.blocks.merge import merge
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.separable import SeparableConv
from vss_ros.methods.davss import Davss

OPTIONS = {
    'backbone': 'lite',
    'align_corners': False,
    'fusion': 'quarter',
    'carry': 'merged',
    'decision': 'half',
    'flow': 'dis',
    'norms': 'mixed',
}


@pytest.fixture(scope='module')
def images(reference_arrays):
    frames = reference_arrays('davss_a.npz')['r1/frames'][..., ::-1]
    return torch.from_numpy(frames.copy()).split(1)


@pytest.fixture(scope='module')
def light():
    """The light variant with norms that have seen pictures, so that its map is neither 0 nor 1."""
    torch.manual_seed(0)
    davss = Davss(11, backbone='lite').train()
    with torch.no_grad():
        davss.dmnet.conv4.bias.normal_(std=0.1)  # features of 0 have no direction; trained ones are never 0
        for _ in range(20):
            davss.dmnet(torch.rand(2, 3, 24, 32), torch.rand(2, 3, 24, 32))
            davss.deeplab(torch.rand(2, 3, 96, 128))
            davss.cfnet(torch.rand(2, 3, 96, 128))
    return davss.eval()


@pytest.fixture(scope='module')
def tensors(light, images):
    """Inputs of the correction on a real propagated frame."""
    return light.examples(images[0], images[1])['correction'].inputs


def correct(davss, tensors, monkeypatch, **options):
    for name, value in options.items():
        if name in ('decision', 'align_corners'):
            monkeypatch.setattr(davss, name, value)
        monkeypatch.setitem(davss.options, name, value)
    with torch.no_grad():
        return davss.correction(**tensors)


def test_a_method_is_rebuilt_by_its_name_and_options():
    first = build_method('davss', 5, OPTIONS)
    again = build_method('davss', first.classes, first.options)
    assert isinstance(first, Davss)
    assert first.options == again.options == OPTIONS
    again.load_state_dict(first.state_dict())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'backbone': 'resnet'}, "backbone is 'resnet'; use one of xception, lite"),
        ({'align_corners': 'yes'}, "align_corners is 'yes'; use true or false"),
        ({'fusion': 'half'}, "fusion is 'half'; use one of full, quarter"),
        ({'carry': 'cue'}, "carry is 'cue'; use one of warped, merged"),
        ({'flow': 'raft'}, "flow is 'raft'; use one of network, dis, dis_third, dis_half, motion_vectors"),
        ({'decision': 'half'}, r"decision is 'half' with fusion full; .* use fusion quarter"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(SettingsError, match=message), torch.device('meta'):
        build_method('davss', 11, options)


def test_a_flow_from_the_host_replaces_the_flow_network(images):
    davss = Davss(5, backbone='lite', flow='motion_vectors').eval()
    assert davss.graphs == ('segmenter', 'warp', 'correction')
    assert not any(name.startswith('flownet') for name in davss.state_dict())
    assert davss.examples(images[0])['warp'].inputs['flow'].shape == (1, 2, 23, 35)


def test_examples_name_every_input_and_output_of_every_graph(light, images):
    examples = light.examples(images[0], images[1])
    assert tuple(examples) == light.graphs == ('segmenter', 'flow', 'warp', 'correction')
    described = {
        name: (str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape))
        for example in examples.values()
        for name, tensor in {**example.inputs, **example.outputs}.items()
    }
    assert described == {
        'image': ('uint8', (1, 92, 140, 3)),
        'previous_image': ('uint8', (1, 92, 140, 3)),
        'scores': ('float32', (1, 11, 23, 35)),
        'previous_scores': ('float32', (1, 11, 23, 35)),
        'appearance': ('float32', (1, 3, 23, 35)),
        'previous_appearance': ('float32', (1, 3, 23, 35)),
        'flow': ('float32', (1, 2, 23, 35)),
        'warped': ('float32', (1, 11, 23, 35)),
        'warped_appearance': ('float32', (1, 3, 23, 35)),
        'mask': ('uint8', (1, 92, 140)),
        'confidence': ('uint8', (1, 92, 140)),
        'distortion': ('float32', (1, 1, 92, 140)),
        'corrected': ('float32', ()),
    }


def test_results_and_state_stay_float32_where_networks_compute_in_bfloat16(light, images):
    plain = light.examples(images[0], images[1])
    with torch.autocast('cpu', torch.bfloat16):
        lower = light.examples(images[0], images[1])
    for graph in light.graphs:
        for name, tensor in lower[graph].outputs.items():
            assert tensor.dtype == plain[graph].outputs[name].dtype


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('carry', ['warped', 'merged'])
@pytest.mark.parametrize('fusion', ['full', 'quarter'])
def test_state_is_what_carry_and_fusion_say(light, tensors, monkeypatch, fusion, carry, align_corners):
    found = correct(light, tensors, monkeypatch, fusion=fusion, carry=carry, align_corners=align_corners)

    def resized(maps, size):
        return resize(maps, size, align_corners)

    rgb, warped, appearance = to_rgb(tensors['image']), tensors['warped'], tensors['warped_appearance']
    with torch.no_grad():
        cue, seen = light.cfnet(rgb), resized(rgb, (23, 35))
        narrow = light.dmnet(appearance, seen)
    at = (92, 140) if fusion == 'full' else (23, 35)
    merged = merge(resized(warped, at), resized(cue, at), resized(narrow, at))
    low = resized(merged, (23, 35))

    assert 0.01 < narrow.mean() < 0.99
    assert torch.equal(found['distortion'], resized(narrow, at))
    assert torch.equal(found['mask'], decide(merged, (92, 140), 'full', align_corners)['mask'])
    assert torch.equal(found['scores'], low if carry == 'merged' else warped)
    mixed = merge(appearance, seen, narrow) if carry == 'merged' else appearance
    assert torch.equal(found['appearance'], mixed)
    assert found['corrected'] == (labels_of(low) != labels_of(warped)).float().mean()


@pytest.mark.parametrize(('decision', 'part'), [('half', 2), ('quarter', 4)])
def test_decision_changes_only_the_mask_and_its_confidence(light, tensors, monkeypatch, decision, part):
    full = correct(light, tensors, monkeypatch, fusion='quarter')
    coarse = correct(light, tensors, monkeypatch, decision=decision)
    for name in ('scores', 'appearance', 'distortion', 'corrected'):
        assert torch.equal(full[name], coarse[name])
    assert coarse['mask'].shape[1:] == (full['mask'].shape[1] // part, full['mask'].shape[2] // part)
    enlarged = coarse['mask'].repeat_interleave(part, 1).repeat_interleave(part, 2)
    assert not torch.equal(full['mask'], enlarged)


def test_a_still_scene_is_not_corrected(light, images):
    key = run_step(light, 'key', {'image': images[0]})
    still = {'image': images[0], **light.state_of(key), 'flow': torch.zeros(1, 2, 23, 35)}
    with torch.no_grad():
        for graph in ('warp', 'correction'):
            still |= light.run(graph, still)
    # Warping by zero moves nothing but rounds a little, and the similarity has a kink there.
    assert still['distortion'].max() < 1e-3
    assert (still['mask'] != key['mask']).float().mean() < 1e-3


def test_dmnet_gives_the_same_whichever_picture_comes_first_and_0_for_one_and_the_same():
    torch.manual_seed(0)
    dmnet = DmNet(0.1).eval()
    torch.nn.init.normal_(dmnet.conv4.bias)
    one, other = torch.rand(2, 1, 3, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(dmnet(one, other), dmnet(other, one))
        assert dmnet(one, one).max() < 1e-6
        assert dmnet(one, other).min() >= 0


def test_resizing_to_a_quarter_with_corners_aligned_keeps_the_corners():
    maps = torch.rand(1, 2, 12, 16)
    found = resize(maps, (3, 4), align_corners=True)
    corners = [found[..., y, x] for y in (0, -1) for x in (0, -1)]
    expected = [maps[..., y, x] for y in (0, -1) for x in (0, -1)]
    torch.testing.assert_close(corners, expected)


@pytest.mark.parametrize('relu_first', [True, False])
def test_a_separable_convolution_rectifies_before_or_behind_its_norms(relu_first):
    torch.manual_seed(0)
    block = SeparableConv(3, 4, stride=2, dilation=2, relu_first=relu_first).eval()
    maps = torch.randn(1, 3, 9, 12)
    with torch.no_grad():
        found = block(maps)
        before = maps.relu() if relu_first else maps
        spread = torch.conv2d(before, block.depthwise.weight, None, 2, 2, 2, groups=3) / (1 + 1e-5) ** 0.5
        expected = torch.conv2d(spread if relu_first else spread.relu(), block.pointwise.weight)
        expected = expected / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(found, expected if relu_first else expected.relu())
    assert found.shape == (1, 4, 5, 6)


def multiply_adds(network, *inputs):
    """Of convolutions, in billions; on tensors without content, so that nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ('classes', 'size', 'billions'),
    [
        (11, (720, 960), (135.111, 8.699, 10.444, 0.049)),
        (19, (1024, 2048), (410.204, 26.226, 31.495, 0.148)),
    ],
)
def test_networks_are_as_large_as_those_of_the_release(classes, size, billions):
    with torch.device('meta'):
        davss = Davss(classes).eval()
        image, small = torch.empty(1, 3, *size), torch.empty(1, 3, size[0] // 4, size[1] // 4)
        found = (
            multiply_adds(davss.deeplab, image),
            multiply_adds(davss.flownet, image, image),
            multiply_adds(davss.cfnet, image),
            multiply_adds(davss.dmnet, small, small),
        )
    assert found == pytest.approx(billions, abs=5e-4)
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in davss.named_children()}
    assert parameters == {
        'deeplab': 41_054_899 if classes == 19 else 41_052_843,
        'flownet': 5_462_306,
        'cfnet': 9_487_699 if classes == 19 else 9_486_923,
        'dmnet': 764,
    }


def test_a_propagated_frame_of_the_light_variant_costs_a_third_of_its_key_frame():
    with torch.device('meta'):
        davss = Davss(11, backbone='lite').eval()
        image, small = torch.empty(1, 3, 360, 480), torch.empty(1, 3, 90, 120)
        key = multiply_adds(davss.deeplab, image)
        propagated = multiply_adds(davss.cfnet, image) + multiply_adds(davss.dmnet, small, small)
    assert key == pytest.approx(2.05, abs=0.01)
    assert propagated < 0.35 * key


def test_the_light_variant_takes_the_segmenter_of_evss_lite_and_gives_its_scores(images):
    segmenter = LiteSegmenter(11).eval()
    davss = Davss(11, backbone='lite', flow='dis').eval()
    davss.deeplab.load_state_dict(segmenter.state_dict())
    with torch.no_grad():
        expected = segmenter(to_rgb(images[0]))
        assert torch.equal(davss.segmenter(images[0])['scores'], expected)


def test_folding_the_light_variant_changes_nothing_it_gives(light, images):
    folded = copy.deepcopy(light)
    folded.fold((92, 140))
    for graph, example in light.examples(images[0], images[1]).items():
        with torch.no_grad():
            found = folded.run(graph, example.inputs)
        for name in ('scores', 'appearance', 'distortion'):
            if name in found:
                torch.testing.assert_close(found[name], example.outputs[name], rtol=1e-3, atol=2e-3)


def test_a_new_deeplab_starts_as_published():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        deeplab = Davss(5).deeplab

    def spread(name):
        return deeplab.get_parameter(name).std().item()

    assert spread('xception_features.middle_flow_block1_unit_3.separable_conv2.pointwise.weight') == (
        pytest.approx(0.09, rel=0.01)
    )
    assert spread('xception_features.entry_flow_conv1_2.conv.weight') == pytest.approx(
        (2 / (9 * 64)) ** 0.5, rel=0.03
    )
    assert spread('aspp2.atrous_convolution.depthwise.weight') == pytest.approx(0.33, rel=0.03)
    norms = {
        (m.eps, m.momentum) for m in deeplab.xception_features.modules() if isinstance(m, nn.BatchNorm2d)
    }
    assert norms == {(1e-3, 0.0003)}


def test_the_published_segmenter_exports_and_runs_without_pytorch(filled_davss, images, tmp_path):
    davss = filled_davss(11)
    image = torch.from_numpy(example_frames((64, 96), 1)[0][None])
    example = davss.examples(image)['segmenter']
    write_graph(davss, 'segmenter', example, tmp_path)
    session = onnxruntime.InferenceSession(
        tmp_path / 'segmenter.onnx', session_options(1), providers=['CPUExecutionProvider']
    )
    found = dict(zip(example.outputs, session.run(None, {'image': image.numpy()}), strict=True))
    expected = example.outputs['scores'].numpy()
    assert np.abs(found['scores'] - expected).max() < 1e-4 * np.abs(expected).max()
    assert (found['mask'] != example.outputs['mask'].numpy()).mean() < 1e-3
